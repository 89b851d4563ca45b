//! A file system of ISO 7816-4: directories, transparent files and files of
//! records, selected by path, by identifier or by a directory's name.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::apdu::{
    Answer, Command, END_OF_FILE, NO_FILE_SELECTED, NO_SUCH_CLASS, NO_SUCH_COMMAND, NOT_FOUND, OK,
    RECORD_NOT_FOUND, WRONG_OFFSET, WRONG_PARAMETERS, object,
};
use super::applet::is_part_of;

pub(super) const MASTER_FILE: u16 = 0x3F00;

/// A file's path below the master file, which is the empty one.
pub(super) type Path = Vec<u16>;

/// What a file is.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// With its name (AID), if it has one.
    Directory(Option<Vec<u8>>),
    Transparent(Vec<u8>),
    Records(Vec<Vec<u8>>),
}

/// How a card's file system differs from others.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileQuirks {
    /// SELECT with another P1 than 00, and 04 for names, is refused (6A86).
    by_identifier_only: bool,
    /// SELECT with P2 = 0C, that is without an answer, is refused (6A86).
    always_answers: bool,
    /// Which SELECT there is.
    selects: Selects,
    /// What READ BINARY beyond the end says.
    end: End,
}

/// Which SELECT a card knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Selects {
    #[default]
    Any,
    /// That of a path that begins with the master file, without an answer (P1 = 08,
    /// P2 = 0C), as with the Belgian identity card; any other is refused (6B00).
    SilentPaths,
    /// None is allowed (6982), as with a Feitian ePass2003.
    None,
}

/// What READ BINARY says that asks for more than is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum End {
    /// What is left, and 9000.
    #[default]
    #[serde(rename = "9000")]
    Short,
    /// What is left, and a warning.
    #[serde(rename = "6282")]
    Warning,
    /// The right Le, and no data.
    #[serde(rename = "6Cxx")]
    RightLe,
}

/// The files, and which are current.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    nodes: BTreeMap<Path, Node>,
    quirks: FileQuirks,
    directory: Path,
    file: Option<Path>,
}

impl Files {
    pub(super) fn new(quirks: FileQuirks) -> Self {
        let nodes = BTreeMap::from([(Vec::new(), Node::Directory(None))]);
        Self { nodes, quirks, ..Self::default() }
    }

    /// Adds a file.
    pub(super) fn add(&mut self, path: impl Into<Path>, node: Node) {
        self.nodes.insert(path.into(), node);
    }

    /// Makes the master file current.
    pub(super) fn reset(&mut self) {
        self.directory.clear();
        self.file = None;
    }

    /// Whether a directory has this name, whole or in part.
    pub(super) fn has_name(&self, aid: &[u8]) -> bool {
        self.by_name(aid).is_some()
    }

    /// SELECT by a directory's name, where `answer` says whether data is wanted.
    pub(super) fn select_name(&mut self, aid: &[u8]) -> Answer {
        match self.by_name(aid) {
            Some(path) => self.make_current(path, 0x00),
            None => Answer::status(NOT_FOUND),
        }
    }

    /// Answers SELECT, READ BINARY and READ RECORD.
    pub(super) fn command(&mut self, command: &Command<'_>) -> Answer {
        match (command.class, command.instruction) {
            (0x00, 0xA4) => self.select(command),
            (0x00, 0xB0) => self.read_binary(command),
            (0x00, 0xB2) => self.read_record(command),
            (0x00, _) => Answer::status(NO_SUCH_COMMAND),
            _ => Answer::status(NO_SUCH_CLASS),
        }
    }

    fn by_name(&self, aid: &[u8]) -> Option<Path> {
        let named = self
            .nodes
            .iter()
            .find(|(_, node)| matches!(node, Node::Directory(Some(name)) if is_part_of(aid, name)));
        named.map(|(path, _)| path.clone())
    }

    fn select(&mut self, command: &Command<'_>) -> Answer {
        let is_silent_path =
            command.p1 == 0x08 && command.p2 == 0x0C && command.data.starts_with(&[0x3F, 0x00]);
        match self.quirks.selects {
            Selects::SilentPaths if !is_silent_path => return Answer::status(WRONG_OFFSET),
            Selects::None => return Answer::status(0x6982),
            Selects::Any | Selects::SilentPaths => {}
        }
        let refused = (self.quirks.by_identifier_only && command.p1 != 0x00)
            || (self.quirks.always_answers && command.p2 & 0x0C == 0x0C);
        let Some(ids) = identifiers(command.data).filter(|_| !refused) else {
            return Answer::status(WRONG_PARAMETERS);
        };
        let found = match (command.p1, ids.as_slice()) {
            (0x00, [] | [MASTER_FILE]) => Some(Vec::new()),
            (0x00, [id]) => self.near(*id),
            (0x01 | 0x02, [id]) => self.child(&self.directory, *id),
            (0x03, []) => Some(parent(&self.directory)),
            (0x08, [MASTER_FILE, path @ ..] | path) => Some(path.to_vec()),
            (0x09, path) => Some([&self.directory, path].concat()),
            _ => return Answer::status(WRONG_PARAMETERS),
        };
        match found.filter(|path| self.nodes.contains_key(path)) {
            Some(path) => self.make_current(path, command.p2),
            None => Answer::status(NOT_FOUND),
        }
    }

    /// A file below the current directory, or beside it.
    fn near(&self, id: u16) -> Option<Path> {
        let below = self.child(&self.directory, id);
        below.or_else(|| self.child(&parent(&self.directory), id))
    }

    fn child(&self, directory: &[u16], id: u16) -> Option<Path> {
        let path = [directory, &[id]].concat();
        self.nodes.contains_key(&path).then_some(path)
    }

    fn make_current(&mut self, path: Path, p2: u8) -> Answer {
        let Some(node) = self.nodes.get(&path) else {
            return Answer::status(NOT_FOUND);
        };
        let control = control(&path, node);
        if matches!(node, Node::Directory(_)) {
            self.directory = path;
            self.file = None;
        } else {
            self.directory = parent(&path);
            self.file = Some(path);
        }
        if p2 & 0x0C == 0x0C { Answer::data([]) } else { Answer::data(control) }
    }

    fn read_binary(&self, command: &Command<'_>) -> Answer {
        let node = self.file.as_ref().and_then(|path| self.nodes.get(path));
        let content = match node {
            Some(Node::Transparent(content)) => content,
            Some(Node::Records(_)) => return Answer::status(0x6981),
            Some(Node::Directory(_)) | None => return Answer::status(NO_FILE_SELECTED),
        };
        if command.p1 & 0x80 != 0 {
            return Answer::status(WRONG_PARAMETERS);
        }
        let left = content.get(usize::from(command.p1_p2())..).unwrap_or_default();
        if left.is_empty() && !content.is_empty() {
            return Answer::status(WRONG_OFFSET);
        }
        self.part(left, command.le.unwrap_or(256))
    }

    fn part(&self, left: &[u8], wanted: usize) -> Answer {
        let Some(short) = left.len().checked_sub(wanted) else {
            let status = match self.quirks.end {
                End::Short => OK,
                End::Warning => END_OF_FILE,
                End::RightLe => {
                    return Answer::status(
                        0x6C00 | u16::from(u8::try_from(left.len()).unwrap_or(0)),
                    );
                }
            };
            return Answer { data: left.to_vec(), status };
        };
        Answer::data(left.get(..left.len() - short).unwrap_or_default())
    }

    fn read_record(&self, command: &Command<'_>) -> Answer {
        let node = self.file.as_ref().and_then(|path| self.nodes.get(path));
        let Some(Node::Records(records)) = node else {
            return Answer::status(NO_FILE_SELECTED);
        };
        if command.p2 != 0x04 {
            return Answer::status(WRONG_PARAMETERS);
        }
        match usize::from(command.p1).checked_sub(1).and_then(|index| records.get(index)) {
            Some(record) => Answer::data(record.clone()),
            None => Answer::status(RECORD_NOT_FOUND),
        }
    }
}

fn parent(path: &[u16]) -> Path {
    path.split_last().map(|(_, rest)| rest.to_vec()).unwrap_or_default()
}

/// Identifiers of two bytes each; `None` for an odd number of bytes.
fn identifiers(data: &[u8]) -> Option<Vec<u16>> {
    let (pairs, rest) = data.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect())
}

/// File control information: size or name, kind and identifier.
fn control(path: &[u16], node: &Node) -> Vec<u8> {
    let id = path.last().unwrap_or(&MASTER_FILE).to_be_bytes();
    let size = |count: usize| u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes();
    let mut content = match node {
        Node::Directory(None) => object(0x82, &[0x38]),
        Node::Directory(Some(name)) => [object(0x82, &[0x38]), object(0x84, name)].concat(),
        Node::Transparent(bytes) => {
            [object(0x80, &size(bytes.len())), object(0x82, &[0x01])].concat()
        }
        Node::Records(records) => {
            let total = records.iter().map(Vec::len).sum();
            [object(0x80, &size(total)), object(0x82, &[0x04])].concat()
        }
    };
    content.extend(object(0x83, &id));
    object(0x6F, &content)
}

#[cfg(test)]
mod tests;
