//! What the kernel says about the agent's process, from `/proc`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};

/// Resident memory, in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// All of it, the pages of the binary and of libraries included.
    pub(crate) resident: f64,
    /// The part that is the process's own: heap, stacks.
    pub(crate) anonymous: f64,
    /// The most that `resident` ever was.
    pub(crate) peak: f64,
}

/// What one thread has used so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) name: String,
    pub(crate) cpu_ns: u64,
    pub(crate) voluntary: u64,
    pub(crate) involuntary: u64,
}

/// A process, by its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pid(pub(crate) u32);

impl Pid {
    pub(crate) fn memory(self) -> Result<Memory> {
        let status = self.read("status")?;
        let kib = |key| field(&status, key).map(|text| text.parse::<f64>().unwrap_or(f64::NAN));
        Ok(Memory { resident: kib("VmRSS")?, anonymous: kib("RssAnon")?, peak: kib("VmHWM")? })
    }

    /// Each thread's use, by its id.
    pub(crate) fn threads(self) -> Result<BTreeMap<String, Usage>> {
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{}/task", self.0))? {
            let id = entry?.file_name().to_string_lossy().into_owned();
            let status = self.read(&format!("task/{id}/status"))?;
            let schedstat = self.read(&format!("task/{id}/schedstat"))?;
            let cpu = schedstat.split_whitespace().next().context("an empty schedstat")?;
            let usage = Usage {
                name: field(&status, "Name")?.to_owned(),
                cpu_ns: cpu.parse()?,
                voluntary: field(&status, "voluntary_ctxt_switches")?.parse()?,
                involuntary: field(&status, "nonvoluntary_ctxt_switches")?.parse()?,
            };
            threads.insert(id, usage);
        }
        Ok(threads)
    }

    pub(crate) fn descriptors(self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.0))?.count())
    }

    /// The local ports of the open connections to this address.
    pub(crate) fn connections_to(self, address: SocketAddr) -> Result<BTreeSet<String>> {
        let table = self.read("net/tcp")?;
        let remote = format!(":{:04X}", address.port());
        let established = |line: &str| {
            let mut columns = line.split_whitespace().skip(1);
            let (local, other, state) = (columns.next()?, columns.next()?, columns.next()?);
            (state == "01" && other.ends_with(&remote)).then(|| local.to_owned())
        };
        Ok(table.lines().filter_map(established).collect())
    }

    fn read(self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.0);
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    }
}

/// The first word of a field in a `status` file.
fn field<'a>(status: &'a str, key: &str) -> Result<&'a str> {
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(name, _)| *name == key).with_context(|| format!("no {key}"))?;
    Ok(value.split_whitespace().next().unwrap_or_default())
}
