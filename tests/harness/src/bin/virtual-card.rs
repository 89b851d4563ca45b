//! A virtual card by hand: `virtual-card --help`.

#![expect(clippy::print_stdout, reason = "a program for users")]

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use cardbridge_harness::cards::{
    Answering, Card, Faults, GidsCard, InsertedCard, PlainCard, SEED_ATR, SEED_CARDID, load,
};
use cardbridge_harness::netns::Namespace;
use cardbridge_harness::process::interrupted;
use clap::{Parser, ValueEnum};

/// Inserts a virtual card into a slot of vpcd and keeps it there until Ctrl-C
/// or the end of standard input.
#[derive(Parser)]
struct Arguments {
    /// A personalisation file (tests/cards/*.toml), instead of family, cardid and
    /// ATR.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["family", "cardid", "atr"])]
    card: Option<PathBuf>,
    /// The card's family.
    #[arg(long, value_enum, default_value = "gids")]
    family: Family,
    /// The sixteen bytes of a GIDS card's cardid file, in hex.
    #[arg(long, value_name = "HEX", default_value_t = hex::encode(SEED_CARDID))]
    cardid: String,
    /// The answer to reset, in hex.
    #[arg(long, value_name = "HEX", default_value_t = hex::encode(SEED_ATR))]
    atr: String,
    /// The slot's port: 35963 and on, a port a slot.
    #[arg(long, default_value_t = 35963)]
    port: u16,
    /// The host vpcd runs on.
    #[arg(long, default_value = "127.0.0.1", conflicts_with = "netns_of")]
    host: String,
    /// The pcscd whose network namespace the slot is in.
    #[arg(long, value_name = "PID")]
    netns_of: Option<u32>,
    /// What is wrong with the card; can be repeated. One of: mute, slow=MS,
    /// hang=N and remove=N (at the Nth APDU), sw=HEX, get-response, wrong-le,
    /// garbage, stump.
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Family {
    /// Microsoft's Generic Identity Device Specification.
    Gids,
    /// None: "not found" to everything.
    Plain,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let card = card(&arguments)?;
    let namespace = match arguments.netns_of {
        Some(pid) => Namespace::of(pid),
        None => Namespace::own(&arguments.host),
    };
    let stop = interrupted()?;
    stop_at_end_of_input(Arc::clone(&stop));
    let faults = faults(&arguments.faults)?;
    let card = InsertedCard::insert(namespace, arguments.port, card, faults)?;
    println!("card in, port {}; Ctrl-C takes it out", arguments.port);
    show(&card, &stop);
    drop(card);
    println!("card out");
    Ok(())
}

fn card(arguments: &Arguments) -> Result<Box<dyn Card>> {
    if let Some(file) = &arguments.card {
        return load(file);
    }
    let atr = hex::decode(&arguments.atr).context("--atr is not hex")?;
    Ok(match arguments.family {
        Family::Plain => Box::new(PlainCard::new(atr)),
        Family::Gids => {
            let cardid = hex::decode(&arguments.cardid).context("--cardid is not hex")?;
            let cardid = <[u8; 16]>::try_from(cardid);
            let cardid = cardid.map_err(|_| anyhow!("--cardid is not 16 bytes"))?;
            Box::new(GidsCard::new(cardid).with_atr(atr))
        }
    })
}

/// Prints each APDU with its answer until the card is to be taken out.
fn show(card: &InsertedCard, stop: &AtomicBool) {
    let mut shown = 0;
    while !stop.load(Ordering::SeqCst) {
        // In vain is as good: then no APDU came meanwhile.
        drop(card.wait_for("an APDU", Duration::from_millis(100), |state| {
            let next = state.exchanges.get(shown);
            state.out || next.is_some_and(|next| next.answer.is_some())
        }));
        let state = card.state();
        let done = state
            .exchanges
            .iter()
            .skip(shown)
            .take_while(|exchange| exchange.answer.is_some() || state.out);
        for exchange in done {
            println!("> {}", hex::encode_upper(&exchange.command));
            let answer = exchange.answer.as_ref().map(hex::encode_upper);
            println!("< {}", answer.as_deref().unwrap_or("(torn out)"));
            shown += 1;
        }
        if state.out {
            break;
        }
    }
}

fn stop_at_end_of_input(stop: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut buffer = [0; 256];
        while input.read(&mut buffer).is_ok_and(|count| count > 0) {}
        stop.store(true, Ordering::SeqCst);
    });
}

fn faults(names: &[String]) -> Result<Faults> {
    let mut faults = Faults::default();
    for fault in names {
        let (name, value) = fault.split_once('=').unwrap_or((fault, ""));
        let number = || value.parse().with_context(|| format!("--fault {fault}: no number"));
        match name {
            "mute" => faults.mute = true,
            "slow" => faults.slow = Duration::from_millis(u64::from(number()?)),
            "hang" => faults.hang_at = Some(number()?),
            "remove" => faults.remove_at = Some(number()?),
            "sw" => {
                let word = u16::from_str_radix(value, 16);
                faults.answering = Answering::StatusWord(word.context("--fault sw: not hex")?);
            }
            "get-response" => faults.answering = Answering::GetResponse,
            "wrong-le" => faults.answering = Answering::WrongLe,
            "garbage" => faults.answering = Answering::Garbage,
            "stump" => faults.answering = Answering::Stump,
            _ => bail!("no such fault: {fault}"),
        }
    }
    Ok(faults)
}
