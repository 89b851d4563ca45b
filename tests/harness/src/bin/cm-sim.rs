//! The CM simulator by hand: `cm-sim --help`.

#![expect(clippy::print_stdout, reason = "a program for users")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cardbridge_harness::cm::{
    BASE_PATH, CONTROL_HELP, Certificate, ClientCertificates, Cm, CmOptions, Store, Tokens,
};
use cardbridge_harness::process::interrupted;
use clap::Parser;

/// A simulator of MIM Certificate Management's REST API.
#[derive(Parser)]
#[command(after_help = CONTROL_HELP)]
struct Arguments {
    /// Address and port; port 0 finds a free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// HTTPS; the CA's certificate is written to DIR/ca.pem.
    #[arg(long, value_name = "DIR")]
    tls: Option<PathBuf>,
    /// Lets in only who presents this token.
    #[arg(long, value_name = "TOKEN")]
    bearer: Option<String>,
    /// Lets in only tokens that it gives out itself, at /adfs/oauth2/token, to
    /// this client; the resource is `urn:cm`.
    #[arg(long, value_name = "CLIENT:SECRET", conflicts_with = "bearer")]
    oauth: Option<String>,
    /// Records and requests to start with, as `/_sim/state` shows them; the
    /// documentation's card and its Retire request if not given.
    #[arg(long, value_name = "FILE.json")]
    state: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let store = match &arguments.state {
        None => Store::seed(),
        Some(file) => {
            let text = std::fs::read(file);
            let text = text.with_context(|| format!("cannot read {}", file.display()))?;
            serde_json::from_slice(&text)
                .with_context(|| format!("{} is not a state", file.display()))?
        }
    };
    let tokens = match arguments.oauth.as_deref().map(|pair| pair.split_once(':')) {
        None => None,
        Some(None) => bail!("--oauth wants CLIENT:SECRET"),
        Some(Some((client, secret))) => {
            let tokens = Tokens::new("urn:cm");
            tokens.register_secret(client, secret);
            Some(tokens)
        }
    };
    let stop = interrupted()?;
    let cm = Cm::start(CmOptions {
        listen: arguments.listen,
        tls: arguments.tls.as_ref().map(|_| Certificate::Good),
        client_certificates: ClientCertificates::NotAsked,
        tls_dir: arguments.tls,
        bearer: arguments.bearer,
        tokens,
        store,
        control: true,
    })?;
    println!("CM simulator on {}{BASE_PATH}", cm.url());
    if let Some(file) = cm.ca_pem_path() {
        println!("CA certificate: {}", file.display());
    }
    let mut seen = 0;
    while !stop.load(Ordering::SeqCst) {
        // In vain is as good: then no call came meanwhile.
        drop(cm.wait_for("a call", Duration::from_millis(100), |log| {
            log.get(seen).is_some_and(|entry| entry.finished)
        }));
        let log = cm.log();
        let done = log.iter().skip(seen).take_while(|entry| entry.finished);
        for entry in done {
            println!("{} {entry}", humantime::format_rfc3339_millis(entry.at));
            seen += 1;
        }
    }
    Ok(())
}
