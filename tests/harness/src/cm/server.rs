//! The simulator's sockets: listening, going away, and the life of a
//! connection.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::answer::{Answer, Origin};
use super::control;
use super::fault::Fault;
use super::http::{
    Call, Wire, read_call, write_answer, write_chunked, write_half, write_head, write_huge,
    write_slowly,
};
use super::shared_state::{SharedState, Stage};
use crate::pki::thumbprint;

/// An order of the owner to the server.
pub(super) enum Order {
    /// Close the listener and every connection.
    Away(std::sync::mpsc::Sender<io::Result<()>>),
    /// Listen again on the same port.
    Back(std::sync::mpsc::Sender<io::Result<()>>),
    /// End.
    Stop,
}

/// What each connection needs.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) state: Arc<SharedState>,
    pub(super) tls: Option<TlsAcceptor>,
    /// How many there were.
    pub(super) connections: Arc<AtomicU64>,
    /// Where `/_sim/` may send orders; `None` switches it off.
    pub(super) control: Option<UnboundedSender<Order>>,
}

/// Serves until it is ordered to stop.
pub(super) async fn run(
    listener: StdListener,
    shared: Shared,
    mut orders: UnboundedReceiver<Order>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let mut listener = Some(TcpListener::from_std(listener)?);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = accept(listener.as_ref()) => {
                if let Ok(socket) = accepted {
                    connections.spawn(connection(socket, shared.clone()));
                }
            }
            order = orders.recv() => match order {
                Some(Order::Away(done)) => {
                    listener = None;
                    connections.shutdown().await;
                    drop(done.send(Ok(())));
                }
                Some(Order::Back(done)) => {
                    let bound = listen(address).and_then(TcpListener::from_std);
                    let result = bound.map(|bound| listener = Some(bound));
                    drop(done.send(result));
                }
                Some(Order::Stop) | None => return Ok(()),
            },
            Some(_) = connections.join_next() => (),
        }
    }
}

/// A listener that tokio can take.
pub(super) fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None => std::future::pending().await,
    }
}

async fn connection(socket: TcpStream, shared: Shared) {
    drop(socket.set_nodelay(true));
    let tls = shared.tls.clone();
    // What a client does wrong ends its connection, nothing else.
    drop(match tls {
        None => converse(socket, &shared).await,
        Some(tls) => match tls.accept(socket).await {
            Ok(stream) => converse(stream, &shared).await,
            Err(error) => Err(error),
        },
    });
}

/// A connection that can be reset instead of closed, and knows its client.
trait Line: Wire {
    fn socket(&self) -> &TcpStream;
    fn client_certificate(&self) -> Option<String>;
}

impl Line for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }

    fn client_certificate(&self) -> Option<String> {
        None
    }
}

impl Line for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }

    fn client_certificate(&self) -> Option<String> {
        let certificate = self.get_ref().1.peer_certificates()?.first()?;
        Some(hex::encode(thumbprint(certificate)))
    }
}

async fn converse(mut wire: impl Line, shared: &Shared) -> io::Result<()> {
    let mut buffer = Vec::new();
    let connection = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
    let client_certificate = wire.client_certificate();
    let mut last_answer: Option<Instant> = None;
    while let Some(mut call) = read_call(&mut wire, &mut buffer).await? {
        call.connection = connection;
        call.client_certificate.clone_from(&client_certificate);
        call.idle = last_answer.map(|last| last.elapsed());
        let delivery = match &shared.control {
            Some(orders) if call.target.starts_with("/_sim/") => {
                Delivery::Answer(control::perform(&shared.state, orders, &call))
            }
            _ => serve(&shared.state, &call).await,
        };
        let last = call.is_last() || delivery.is_last();
        match delivery {
            Delivery::Answer(answer) | Delivery::Chunked(answer) if call.method == "HEAD" => {
                write_head(&mut wire, &answer).await?;
            }
            Delivery::Answer(answer) => write_answer(&mut wire, &answer).await?,
            Delivery::Slowly(answer, pause) => write_slowly(&mut wire, &answer, pause).await?,
            Delivery::Chunked(answer) => write_chunked(&mut wire, &answer).await?,
            Delivery::Huge(bytes) => write_huge(&mut wire, bytes).await?,
            Delivery::Half(answer) => return write_half(&mut wire, &answer).await,
            Delivery::Cut => return Ok(()),
            Delivery::Reset => {
                // Closing a socket that lingers for no time resets it.
                set_socket_linger(wire.socket(), Some(Duration::ZERO))?;
                return Ok(());
            }
        }
        if last {
            break;
        }
        last_answer = Some(Instant::now());
    }
    Ok(())
}

/// How an answer reaches the client, if at all.
enum Delivery {
    Answer(Answer),
    Chunked(Answer),
    Slowly(Answer, Duration),
    Half(Answer),
    Huge(u64),
    Cut,
    Reset,
}

impl Delivery {
    /// Whether the server closes the connection after it.
    fn is_last(&self) -> bool {
        matches!(self, Self::Answer(answer) if answer.origin == Origin::Driver)
    }
}

async fn serve(state: &SharedState, call: &Call) -> Delivery {
    let (attendance, faults) = state.arrive(call);
    for fault in &faults {
        if let Fault::Slow { ms } = fault {
            tokio::time::sleep(Duration::from_millis(*ms)).await;
        } else if matches!(fault, Fault::HoldBefore) {
            attendance.hold(Stage::BeforeApply).await;
        }
    }
    if faults.contains(&Fault::Reset) {
        return Delivery::Reset;
    }
    let refusal = faults.iter().find_map(|fault| fault.instead(call));
    let refusal = refusal.or_else(|| state.refuse_unknown(call, &faults));
    if let Some(answer) = refusal.or_else(|| state.refuse_stranger(call)) {
        return Delivery::Answer(attendance.answer(answer));
    }
    let mut answer = attendance.perform(call);
    if faults.contains(&Fault::HoldAfter) {
        attendance.hold(Stage::AfterApply).await;
    }
    for fault in &faults {
        answer = fault.bend(answer);
    }
    answer = state.change_answer(call, &faults, answer);
    if faults.contains(&Fault::AnswerLost) {
        return Delivery::Cut;
    }
    delivery(attendance.answer(answer), &faults)
}

fn delivery(answer: Answer, faults: &[Fault]) -> Delivery {
    let huge = faults.iter().find_map(Fault::huge);
    if let Some(bytes) = huge {
        Delivery::Huge(bytes)
    } else if faults.contains(&Fault::CutInBody) {
        Delivery::Half(answer)
    } else if let Some(pause) = faults.iter().find_map(Fault::pause) {
        Delivery::Slowly(answer, pause)
    } else if faults.contains(&Fault::Chunked) {
        Delivery::Chunked(answer)
    } else {
        Delivery::Answer(answer)
    }
}
