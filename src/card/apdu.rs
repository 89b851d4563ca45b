//! Command and response APDUs (ISO 7816-4:2005 section 5.1), in the short form only.
//!
//! Only the constructors below make a command, so cardbridge can only read: SELECT, GET DATA, READ
//! BINARY, READ RECORD, GET RESPONSE, and the two commands by which a YubiKey returns its serial number.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Byte by byte: a command with data carries no Le.
    T0,
    /// In blocks.
    T1,
}

/// INS (ISO 7816-4 section 5.1.2).
#[repr(u8)]
enum Instruction {
    Select = 0xA4,
    ReadBinary = 0xB0,
    ReadRecord = 0xB2,
    GetResponse = 0xC0,
    GetData = 0xCA,
    GetDataOdd = 0xCB,
    /// Yubico's GET DEVICE INFORMATION, of the management application.
    YubikeyInformation = 0x1D,
    /// Yubico's GET SERIAL, of the PIV application.
    YubikeySerial = 0xF8,
}

/// CLA without chaining and secure messaging, on channel 0 (ISO 7816-4 section 5.1.1).
const INTERINDUSTRY: u8 = 0x00;
const GLOBAL_PLATFORM: u8 = 0x80;
/// Executed by the reader (PC/SC part 3 section 3.2.2.1).
const READER: u8 = 0xFF;

/// The tag of the tag list that names the object for GET DATA.
const TAG_LIST: u8 = 0x5C;

/// P1 of SELECT (ISO 7816-4 section 7.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum SelectBy {
    /// The MF, or a file directly below the current DF.
    Identifier = 0x00,
    /// An EF directly below the current DF.
    ChildEf = 0x02,
    Name = 0x04,
    /// The path from the MF, without the MF.
    PathFromMf = 0x08,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandApdu {
    /// CLA, INS, P1 and P2.
    header: [u8; 4],
    /// At most 255 bytes.
    data: Vec<u8>,
    /// The Le that the card asked for; else 00, whatever there is.
    le: Option<u8>,
    /// A SELECT with P2 = 0C has no Le.
    no_response_data: bool,
}

impl CommandApdu {
    /// SELECT by application identifier, or by the beginning of one (ISO 7816-4 section 7.1.1).
    pub(super) fn select<const N: usize>(aid: &[u8; N]) -> Self {
        const { assert!(N >= 5 && N <= 16, "an AID has 5 to 16 bytes") };
        Self::new(Instruction::Select, [SelectBy::Name as u8, 0], aid)
    }

    /// SELECT by what a card returned: a name of 1 to 16 bytes, an identifier of 2, a path of an even
    /// number of bytes up to 16.
    pub(super) fn select_by(by: SelectBy, name: &[u8]) -> Option<Self> {
        let fits = match by {
            SelectBy::Identifier | SelectBy::ChildEf => name.len() == 2,
            SelectBy::Name => (1..=16).contains(&name.len()),
            SelectBy::PathFromMf => (2..=16).contains(&name.len()) && name.len().is_multiple_of(2),
        };
        fits.then(|| Self::new(Instruction::Select, [by as u8, 0], name))
    }

    pub(super) fn select_file(by: SelectBy, id: [u8; 2]) -> Self {
        Self::new(Instruction::Select, [by as u8, 0], &id)
    }

    /// The same SELECT with P2 = 0C and without Le (ISO 7816-4 section 7.1.1): some cards know no other.
    pub(super) fn without_response_data(mut self) -> Self {
        let [_, instruction, _, p2] = &mut self.header;
        if *instruction == Instruction::Select as u8 {
            *p2 = 0x0C;
            self.no_response_data = true;
        }
        self
    }

    /// GET DATA of one object in a file, named by a tag list (ISO 7816-4 section 7.4.2, odd INS).
    #[must_use]
    pub fn get_data(file: u16, tag: u32) -> Self {
        let tag: Vec<u8> = tag.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
        let [length, ..] = tag.len().to_le_bytes();
        Self::new(
            Instruction::GetDataOdd,
            file.to_be_bytes(),
            &[&[TAG_LIST, length], tag.as_slice()].concat(),
        )
    }

    /// GET DATA of one object of the selected application (ISO 7816-4 section 7.4.2, even INS).
    pub(super) fn get_data_current(tag: u16) -> Self {
        Self::new(Instruction::GetData, tag.to_be_bytes(), &[])
    }

    /// READ BINARY of the selected file (ISO 7816-4 section 7.2.3); an offset has 15 bits.
    pub(super) fn read_binary(offset: u16) -> Option<Self> {
        (offset <= 0x7FFF).then(|| Self::new(Instruction::ReadBinary, offset.to_be_bytes(), &[]))
    }

    /// READ RECORD by number in the selected file (ISO 7816-4 section 7.3.3).
    pub(super) fn read_record(number: u8) -> Self {
        Self::new(Instruction::ReadRecord, [number, 0x04], &[])
    }

    /// GET RESPONSE (ISO 7816-4 section 7.6.1); 0 stands for 256 bytes.
    pub(super) fn get_response(available: u8) -> Self {
        Self::new(Instruction::GetResponse, [0, 0], &[]).with_le(available)
    }

    /// GET DATA of the card production life cycle data, of the selected card manager
    /// (GlobalPlatform Card Specification 2.1.1 section 9.3).
    pub(super) fn get_cplc() -> Self {
        Self::new(Instruction::GetData, [0x9F, 0x7F], &[]).with_class(GLOBAL_PLATFORM)
    }

    /// GET DATA of the UID (PC/SC part 3 section 3.2.2.1.3): a contactless reader answers it, a contact
    /// reader may pass it to the card.
    pub(super) fn get_contactless_uid() -> Self {
        Self::new(Instruction::GetData, [0, 0], &[]).with_class(READER)
    }

    /// The serial number of a YubiKey with firmware 5 or later, of its selected PIV application.
    pub(super) fn yubikey_serial() -> Self {
        Self::new(Instruction::YubikeySerial, [0, 0], &[])
    }

    /// The first page of a YubiKey's device information, of its selected management application.
    pub(super) fn yubikey_information() -> Self {
        Self::new(Instruction::YubikeyInformation, [0, 0], &[])
    }

    #[must_use]
    pub fn with_le(self, le: u8) -> Self {
        Self { le: Some(le), ..self }
    }

    fn with_class(mut self, class: u8) -> Self {
        let [cla, ..] = &mut self.header;
        *cla = class;
        self
    }

    fn new(instruction: Instruction, [p1, p2]: [u8; 2], data: &[u8]) -> Self {
        let header = [INTERINDUSTRY, instruction as u8, p1, p2];
        Self { header, data: data.to_vec(), le: None, no_response_data: false }
    }

    /// The bytes for the wire (ISO 7816-3 section 12.1.3, cases 2S and 4S). On T=0 a command with data
    /// gets an Le only after the card asked for it, because some reader drivers reject it.
    #[must_use]
    pub fn to_bytes(&self, protocol: Protocol) -> Vec<u8> {
        let mut bytes = self.header.to_vec();
        if !self.data.is_empty() {
            bytes.push(self.data.len().to_le_bytes()[0]);
            bytes.extend(&self.data);
        }
        let has_le = protocol == Protocol::T1 && !self.no_response_data;
        if self.data.is_empty() || has_le || self.le.is_some() {
            bytes.push(self.le.unwrap_or(0x00));
        }
        bytes
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct ResponseApdu {
    pub(super) data: Vec<u8>,
    pub(super) status: StatusWord,
}

impl ResponseApdu {
    /// `None` where the response is too short for a status word.
    pub(super) fn parse(mut bytes: Vec<u8>) -> Option<Self> {
        let status = StatusWord::from(*bytes.last_chunk()?);
        bytes.truncate(bytes.len() - 2);
        Some(Self { data: bytes, status })
    }
}

/// The status word of a response (ISO 7816-4 section 5.1.3), by what it means when reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatusWord {
    Success,
    /// So many bytes of the response wait; 0 stands for 256 or more.
    More(u8),
    /// Not executed: the Le to use.
    WrongLe(u8),
    /// Fewer bytes than Le.
    EndOfFile,
    /// The card has no such object, or not by this command.
    NotFound(u16),
    /// Needs a PIN or a key.
    SecurityNotSatisfied,
    /// Card or application is at the end of its life.
    Terminated(u16),
    Unexpected(u16),
}

impl StatusWord {
    /// Whether the card knows the command and does not allow it: 69xx (ISO 7816-4 table 6).
    pub(super) fn is_not_allowed(self) -> bool {
        self == Self::SecurityNotSatisfied
            || matches!(self, Self::NotFound(0x6900..=0x69FF) | Self::Unexpected(0x6900..=0x69FF))
    }
}

impl From<[u8; 2]> for StatusWord {
    fn from(bytes: [u8; 2]) -> Self {
        match (u16::from_be_bytes(bytes), bytes) {
            (0x9000, _) => Self::Success,
            (_, [0x61, available]) => Self::More(available),
            (_, [0x6C, le]) => Self::WrongLe(le),
            (0x6282, _) => Self::EndOfFile,
            (0x6982, _) => Self::SecurityNotSatisfied,
            (code @ (0x6283 | 0x6285), _) => Self::Terminated(code),
            (
                code @ (0x6700
                | 0x6985
                | 0x6999
                | 0x6A81
                | 0x6A82
                | 0x6A86..=0x6A88
                | 0x6B00
                | 0x6D00
                | 0x6E00),
                _,
            ) => Self::NotFound(code),
            (code, _) => Self::Unexpected(code),
        }
    }
}

impl fmt::Display for StatusWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("9000 (success)"),
            Self::More(available) => write!(f, "61{available:02X} (more to come)"),
            Self::WrongLe(le) => write!(f, "6C{le:02X} (wrong length)"),
            Self::EndOfFile => f.write_str("6282 (end reached early)"),
            Self::NotFound(code) => write!(f, "{code:04X} (absent)"),
            Self::SecurityNotSatisfied => f.write_str("6982 (protected)"),
            Self::Terminated(code) => write!(f, "{code:04X} (terminated)"),
            Self::Unexpected(code) => write!(f, "{code:04X}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AID: [u8; 9] = [0xA0, 0, 0, 3, 0x97, 0x42, 0x54, 0x46, 0x59];

    fn hex(command: &CommandApdu, protocol: Protocol) -> String {
        hex::encode(command.to_bytes(protocol))
    }

    #[test]
    fn only_reading_commands_can_be_built() {
        let mut commands = vec![
            CommandApdu::select(&AID),
            CommandApdu::select(&[0xFF; 16]),
            CommandApdu::get_cplc(),
            CommandApdu::get_contactless_uid(),
            CommandApdu::yubikey_serial(),
            CommandApdu::yubikey_information(),
        ];
        for byte in 0..=u8::MAX {
            let wide = u16::from_be_bytes([byte, !byte]);
            for by in
                [SelectBy::Identifier, SelectBy::ChildEf, SelectBy::Name, SelectBy::PathFromMf]
            {
                commands.extend(CommandApdu::select_by(by, &[byte, !byte]));
                commands.extend(CommandApdu::select_by(by, &vec![byte; usize::from(byte)]));
            }
            commands.push(CommandApdu::get_data(wide, u32::from(wide) << 8));
            commands.push(CommandApdu::get_data_current(wide));
            commands.extend(CommandApdu::read_binary(wide));
            commands.push(CommandApdu::read_record(byte));
            commands.push(CommandApdu::get_response(byte));
            commands.push(CommandApdu::select(&AID).with_le(byte));
        }
        for protocol in [Protocol::T0, Protocol::T1] {
            for command in &commands {
                let bytes = command.to_bytes(protocol);
                let known: &[u8] = match bytes[0] {
                    0x00 => &[0xA4, 0xB0, 0xB2, 0xC0, 0xCA, 0xCB, 0x1D, 0xF8],
                    0x80 | 0xFF => &[0xCA],
                    _ => &[],
                };
                assert!(known.contains(&bytes[1]), "{command:?}");
                assert!(bytes.len() <= 4 + 1 + 16 + 1, "a short command: {command:?}");
            }
        }
    }

    #[test]
    fn select_by_card_data_is_validated() {
        let select = |by, name: &[u8]| {
            CommandApdu::select_by(by, name).map(|command| hex(&command, Protocol::T1))
        };
        assert_eq!(select(SelectBy::Name, &[]), None);
        assert_eq!(select(SelectBy::Name, &[0; 17]), None);
        assert_eq!(select(SelectBy::Identifier, &[0x3F]), None);
        assert_eq!(select(SelectBy::PathFromMf, &[0x50, 0x15, 0x50]), None);
        assert_eq!(select(SelectBy::PathFromMf, &[0x2F, 0]).unwrap(), "00a40800022f0000");
        assert_eq!(select(SelectBy::ChildEf, &[0x50, 0x32]).unwrap(), "00a4020002503200");
    }

    #[test]
    fn select_without_response_data_changes_only_p2() {
        let quiet = CommandApdu::select(&AID).without_response_data();
        for protocol in [Protocol::T0, Protocol::T1] {
            assert_eq!(hex(&quiet, protocol), "00a4040c09a00000039742544659", "no data, so no Le");
        }
        assert_eq!(
            CommandApdu::read_record(1).without_response_data(),
            CommandApdu::read_record(1)
        );
    }

    #[test]
    fn select_of_application_is_by_name() {
        assert_eq!(hex(&CommandApdu::select(&AID), Protocol::T1), "00a4040009a0000003974254465900");
    }

    #[test]
    fn t0_command_with_data_has_no_le() {
        assert_eq!(hex(&CommandApdu::select(&AID), Protocol::T0), "00a4040009a00000039742544659");
        assert_eq!(hex(&CommandApdu::get_data(0xA000, 0xDF1F), Protocol::T0), "00cba000045c02df1f");
        assert_eq!(
            hex(&CommandApdu::get_data(0xA000, 0xDF1F), Protocol::T1),
            "00cba000045c02df1f00"
        );
    }

    #[test]
    fn t0_command_has_le_after_request() {
        let command = CommandApdu::get_data(0xA012, 0xDF20).with_le(0x13);
        assert_eq!(hex(&command, Protocol::T0), "00cba012045c02df2013");
    }

    #[test]
    fn commands_without_data_have_le() {
        for protocol in [Protocol::T0, Protocol::T1] {
            assert_eq!(hex(&CommandApdu::get_response(0), protocol), "00c0000000");
            assert_eq!(hex(&CommandApdu::get_response(0x0B), protocol), "00c000000b");
            assert_eq!(hex(&CommandApdu::read_record(1), protocol), "00b2010400");
            assert_eq!(hex(&CommandApdu::get_data_current(0x004F), protocol), "00ca004f00");
            assert_eq!(hex(&CommandApdu::get_cplc(), protocol), "80ca9f7f00");
            assert_eq!(hex(&CommandApdu::get_contactless_uid(), protocol), "ffca000000");
            let read = CommandApdu::read_binary(0x0102).unwrap();
            assert_eq!(hex(&read, protocol), "00b0010200");
        }
    }

    #[test]
    fn offset_over_15_bits_is_refused() {
        assert_eq!(CommandApdu::read_binary(0x8000), None);
    }

    #[test]
    fn get_data_has_complete_tag() {
        let chuid = CommandApdu::get_data(0x3FFF, 0x005F_C102);
        assert_eq!(hex(&chuid, Protocol::T1), "00cb3fff055c035fc10200");
        let discovery = CommandApdu::get_data(0x3FFF, 0x7E);
        assert_eq!(hex(&discovery, Protocol::T1), "00cb3fff035c017e00");
    }

    #[test]
    fn response_ends_with_status_word() {
        let response = ResponseApdu { data: vec![1, 2], status: StatusWord::More(0x0B) };
        assert_eq!(ResponseApdu::parse(vec![1, 2, 0x61, 0x0B]), Some(response));
        assert_eq!(ResponseApdu::parse(vec![0x90]), None);
        assert_eq!(ResponseApdu::parse(vec![]), None);
    }

    #[test]
    fn status_words_have_classes() {
        let class = |code: u16| StatusWord::from(code.to_be_bytes());
        assert_eq!(class(0x9000), StatusWord::Success);
        assert_eq!(class(0x6100), StatusWord::More(0));
        assert_eq!(class(0x6C13), StatusWord::WrongLe(0x13));
        assert_eq!(class(0x6282), StatusWord::EndOfFile);
        assert_eq!(class(0x6982), StatusWord::SecurityNotSatisfied);
        assert_eq!(class(0x6285), StatusWord::Terminated(0x6285));
        for code in
            [0x6A82, 0x6A86, 0x6A87, 0x6A88, 0x6A81, 0x6B00, 0x6D00, 0x6E00, 0x6700, 0x6985, 0x6999]
        {
            assert_eq!(class(code), StatusWord::NotFound(code));
        }
        for code in [0x6900, 0x6981, 0x6982, 0x6985, 0x6986, 0x6999] {
            assert!(class(code).is_not_allowed(), "{code:04x}");
        }
        for code in [0x9000, 0x6169, 0x6C69, 0x6282, 0x6283, 0x6700, 0x6A82, 0x6B00, 0x6D00] {
            assert!(!class(code).is_not_allowed(), "{code:04x}");
        }
        assert_eq!(class(0x9001), StatusWord::Unexpected(0x9001));
        assert_eq!(class(0x6F00).to_string(), "6F00");
    }
}
