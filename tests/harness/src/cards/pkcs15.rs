//! A PKCS#15 file system (ISO 7816-15), as far as OpenSC and an identification
//! see it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::apdu::{Answer, Command, DATA_NOT_FOUND, object};
use super::applet::{Applet, is_part_of};
use super::files::{FileQuirks, Files, MASTER_FILE, Node, Path};
use super::hex_text::Hex;

const AID: [u8; 12] = *b"\xA0\x00\x00\x00\x63PKCS-15";
const EF_DIR: u16 = 0x2F00;
const EF_GDO: u16 = 0x2F02;
const ODF: u16 = 0x5031;
const TOKEN_INFO: u16 = 0x5032;
const PIN_OBJECTS: u16 = 0x4401;

/// The table `[pkcs15]` of a personalisation file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Personal {
    /// Of `TokenInfo`.
    serial: Option<Hex>,
    manufacturer: Option<String>,
    label: Option<String>,
    /// The bytes of `EF.TokenInfo` as a whole, instead.
    token_info: Option<Hex>,
    /// `EF.DIR`, its kind if there is one.
    dir: Option<Dir>,
    /// Where the application's directory is.
    #[serde(default)]
    path: Place,
    /// The directory's name; the standard's if not given, none if empty.
    aid: Option<Hex>,
    /// ICCSN in `EF.GDO`, packed digits.
    iccsn: Option<Hex>,
    /// What GET DATA answers, by P1 and P2, as `CardOS` does.
    #[serde(default)]
    data: BTreeMap<String, Hex>,
    /// The applet's own AID on a JavaCard; a native card's file system has none.
    applet_aid: Option<Hex>,
    #[serde(default)]
    files: FileQuirks,
    pub(super) pin: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Dir {
    Transparent,
    Records,
}

/// A path that begins with the master file, in hex.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
struct Place(Hex);

impl Default for Place {
    fn default() -> Self {
        Self(Hex(vec![0x3F, 0x00, 0x50, 0x15]))
    }
}

impl Place {
    fn below_master_file(&self) -> Result<Path> {
        let (pairs, rest) = self.0.0.as_chunks::<2>();
        let ids: Path = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
        let path =
            ids.strip_prefix(&[MASTER_FILE]).context("pkcs15.path does not begin with 3F00")?;
        ensure!(rest.is_empty() && !path.is_empty(), "pkcs15.path names no directory");
        Ok(path.to_vec())
    }
}

impl Personal {
    /// The applet as personalised.
    pub(super) fn applet(self) -> Result<Pkcs15> {
        let has_parts =
            self.serial.is_some() || self.manufacturer.is_some() || self.label.is_some();
        ensure!(
            self.token_info.is_none() || !has_parts,
            "pkcs15.token_info is the whole: serial, manufacturer and label do not go with it"
        );
        let directory = self.path.below_master_file()?;
        let aid = self.aid.as_ref().map_or(AID.to_vec(), |aid| aid.0.clone());
        let mut files = Files::new(self.files);
        files.add(
            directory.clone(),
            Node::Directory(Some(aid.clone()).filter(|aid| !aid.is_empty())),
        );
        files.add(below(&directory, TOKEN_INFO), Node::Transparent(self.token_info_file()));
        files.add(below(&directory, ODF), Node::Transparent(object_directory(&self.path.0.0)));
        files.add(below(&directory, PIN_OBJECTS), Node::Transparent(vec![0; 2]));
        let entry = dir_entry(&aid, &self.path.0.0);
        match self.dir {
            Some(Dir::Transparent) => files.add([EF_DIR], Node::Transparent(padded(entry))),
            Some(Dir::Records) => files.add([EF_DIR], Node::Records(vec![entry])),
            None => (),
        }
        if let Some(Hex(iccsn)) = &self.iccsn {
            files.add([EF_GDO], Node::Transparent(object(0x5A, iccsn)));
        }
        let applet_aid = self.applet_aid.map(|aid| aid.0);
        Ok(Pkcs15 { files, applet_aid, data: data_objects(&self.data)? })
    }

    fn token_info_file(&self) -> Vec<u8> {
        if let Some(Hex(whole)) = &self.token_info {
            return whole.clone();
        }
        let mut content = object(0x02, &[0x00]);
        if let Some(Hex(serial)) = &self.serial {
            content.extend(object(0x04, serial));
        }
        if let Some(manufacturer) = &self.manufacturer {
            content.extend(object(0x0C, manufacturer.as_bytes()));
        }
        if let Some(label) = &self.label {
            content.extend(object(0x80, label.as_bytes()));
        }
        content.extend(object(0x03, &[0x04, 0x30]));
        object(0x30, &content)
    }
}

fn below(directory: &[u16], id: u16) -> Path {
    [directory, &[id]].concat()
}

/// An entry of `EF.DIR`: name, label and path.
fn dir_entry(aid: &[u8], path: &[u8]) -> Vec<u8> {
    let parts = [object(0x4F, aid), object(0x50, b"PKCS#15"), object(0x51, path)];
    object(0x61, &parts.concat())
}

/// Zeros after the entries end the parsing of a transparent `EF.DIR`.
fn padded(mut entries: Vec<u8>) -> Vec<u8> {
    entries.resize(128, 0);
    entries
}

/// `EF.ODF` with one entry, of PINs, whose file holds none. OpenSC wants it.
fn object_directory(directory: &[u8]) -> Vec<u8> {
    let path = [directory, &PIN_OBJECTS.to_be_bytes()].concat();
    object(0xA8, &object(0x30, &object(0x04, &path)))
}

fn data_objects(table: &BTreeMap<String, Hex>) -> Result<BTreeMap<u16, Vec<u8>>> {
    let entry = |(tag, content): (&String, &Hex)| {
        let number = u16::from_str_radix(tag, 16);
        Ok((number.with_context(|| format!("pkcs15.data.{tag} is no tag"))?, content.0.clone()))
    };
    table.iter().map(entry).collect()
}

/// A PKCS#15 file system, on a card of its own or as an applet.
#[derive(Clone, Debug)]
pub(super) struct Pkcs15 {
    files: Files,
    applet_aid: Option<Vec<u8>>,
    data: BTreeMap<u16, Vec<u8>>,
}

impl Applet for Pkcs15 {
    fn name(&self) -> &'static str {
        "pkcs15"
    }

    fn answers_to(&self, aid: &[u8]) -> bool {
        let own = self.applet_aid.as_ref();
        own.is_some_and(|own| is_part_of(aid, own)) || self.files.has_name(aid)
    }

    fn select(&mut self, aid: &[u8]) -> Answer {
        if self.files.has_name(aid) {
            return self.files.select_name(aid);
        }
        self.files.reset();
        Answer::data([])
    }

    fn power(&mut self) {
        self.files.reset();
    }

    fn command(&mut self, command: &Command<'_>) -> Answer {
        if (command.class, command.instruction) != (0x00, 0xCA) {
            return self.files.command(command);
        }
        match self.data.get(&command.p1_p2()) {
            Some(content) => Answer::data(content.clone()),
            None => Answer::status(DATA_NOT_FOUND),
        }
    }
}

#[cfg(test)]
mod tests;
