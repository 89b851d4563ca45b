//! A server that sends the bytes of a test, however bad.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    /// The header lines, in lower case.
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

/// How a request is answered.
pub(crate) enum Reply {
    /// With these bytes; then the next request is read.
    Answer(Vec<u8>),
    /// With these bytes, and an end.
    Cut(Vec<u8>),
    /// With these bytes, and then nothing more until the client has enough.
    Hang(Vec<u8>),
    /// With these bytes, and then these again and again until the client has enough.
    Flood(Vec<u8>, Vec<u8>),
}

/// The server; it lasts as long as the test process.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    flooded: Arc<AtomicUsize>,
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

impl Server {
    pub(crate) fn start(reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen("127.0.0.1:0", reply, |stream| Ok(Box::new(stream)))
    }

    pub(crate) fn start_tls(
        config: ServerConfig,
        reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_tls_on("127.0.0.1:0", config, reply)
    }

    pub(crate) fn start_tls_on(
        address: &str,
        config: ServerConfig,
        reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let config = Arc::new(config);
        Self::listen(address, reply, move |stream| {
            let tls = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
            Ok(Box::new(StreamOwned::new(tls, stream)))
        })
    }

    fn listen(
        address: &str,
        reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
        wrap: impl Fn(TcpStream) -> io::Result<Box<dyn Stream>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, seen: Arc::default(), flooded: Arc::default() };
        let (seen, flooded) = (Arc::clone(&server.seen), Arc::clone(&server.flooded));
        let (reply, wrap) = (Arc::new(reply), Arc::new(wrap));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (reply, wrap) = (Arc::clone(&reply), Arc::clone(&wrap));
                let (seen, flooded) = (Arc::clone(&seen), Arc::clone(&flooded));
                thread::spawn(move || -> io::Result<()> {
                    let mut stream = BufReader::new(wrap(stream?)?);
                    while let Some(request) = read(&mut stream)? {
                        seen.lock().unwrap().push(request.clone());
                        if !write(stream.get_mut(), reply(&request), &flooded)? {
                            break;
                        }
                    }
                    Ok(())
                });
            }
        });
        server
    }

    /// Every request so far, in the order in which they came.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many bytes of a flood the client took, the buffers between included.
    pub(crate) fn flooded(&self) -> usize {
        self.flooded.load(Ordering::SeqCst)
    }
}

fn read(stream: &mut impl BufRead) -> io::Result<Option<Seen>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let first = lines.remove(0);
    let mut parts = first.split(' ').map(str::to_owned);
    let headers: Vec<_> = lines.iter().map(|line| line.to_lowercase()).collect();
    let length = headers.iter().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body)?;
    Ok(Some(Seen {
        method: parts.next().unwrap(),
        target: parts.next().unwrap(),
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }))
}

/// Whether the connection stays.
fn write(stream: &mut impl Stream, reply: Reply, flooded: &AtomicUsize) -> io::Result<bool> {
    match reply {
        Reply::Answer(bytes) => {
            stream.write_all(&bytes)?;
            stream.flush()?;
            Ok(true)
        }
        Reply::Cut(bytes) => {
            stream.write_all(&bytes)?;
            stream.flush()?;
            Ok(false)
        }
        Reply::Hang(bytes) => {
            stream.write_all(&bytes)?;
            stream.flush()?;
            io::copy(stream, &mut io::sink())?;
            Ok(false)
        }
        Reply::Flood(bytes, again) => {
            stream.write_all(&bytes)?;
            loop {
                stream.write_all(&again)?;
                flooded.fetch_add(again.len(), Ordering::SeqCst);
            }
        }
    }
}

/// An answer with a length and whatever headers, as bytes.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}
