//! Commands to a card and responses from it (ISO 7816-4:2005 section 5.1), in the short form only.
//!
//! A command is made by one of the constructors below and by nothing else, so what this program
//! can say to a card is what they say: SELECT, GET DATA, READ BINARY, READ RECORD and GET RESPONSE,
//! and the reads of a vendor's own that YubiKeys answer with their serial number.

use std::fmt;

/// The transmission protocol between reader and card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Byte by byte: a command with data carries no Le.
    T0,
    /// In blocks.
    T1,
}

/// The instruction bytes (ISO 7816-4 section 5.1.2) that can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// The class bytes that can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum CommandClass {
    /// ISO 7816-4 section 5.1.1, no chaining, no secure messaging, channel 0.
    Interindustry = 0x00,
    /// GlobalPlatform's own.
    GlobalPlatform = 0x80,
    /// For the reader, not for the card (PC/SC part 3 section 3.2.2.1).
    Reader = 0xFF,
}

/// How a file is named to SELECT (ISO 7816-4 section 7.1.1, P1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SelectBy {
    /// By its identifier: the MF, or a file right under the current DF.
    Identifier = 0x00,
    /// By its identifier: an EF right under the current DF.
    ChildEf = 0x02,
    /// By the application's name.
    Name = 0x04,
    /// By its path from the MF, without the MF.
    PathFromMf = 0x08,
}

/// The tag of a tag list, which names the object that GET DATA is to bring.
const TAG_LIST: u8 = 0x5C;

/// A command that reads. Every command but a silent SELECT expects an answer, and has an Le.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandApdu {
    class: CommandClass,
    instruction: Instruction,
    p1: u8,
    p2: u8,
    /// The data field, at most 255 bytes.
    data: Vec<u8>,
    /// How many bytes the card asked to be asked for; whatever there is where it did not.
    le: Option<u8>,
    /// Whether no data is expected: a SELECT with P2 = 0C.
    silent: bool,
}

impl CommandApdu {
    /// SELECT by application identifier, or by the beginning of one (ISO 7816-4 section 7.1.1).
    #[must_use]
    pub fn select<const N: usize>(aid: &[u8; N]) -> Self {
        const { assert!(N >= 5 && N <= 16, "an AID has 5 to 16 bytes") };
        Self::new(Instruction::Select, [SelectBy::Name as u8, 0x00], aid.to_vec())
    }

    /// SELECT by something that a card gave: a name of 1 to 16 bytes, an identifier of 2, a path of
    /// an even number of bytes up to 16.
    #[must_use]
    pub fn select_by(by: SelectBy, name: &[u8]) -> Option<Self> {
        let fits = match by {
            SelectBy::Identifier | SelectBy::ChildEf => name.len() == 2,
            SelectBy::Name => (1..=16).contains(&name.len()),
            SelectBy::PathFromMf => (2..=16).contains(&name.len()) && name.len().is_multiple_of(2),
        };
        fits.then(|| Self::new(Instruction::Select, [by as u8, 0x00], name.to_vec()))
    }

    /// SELECT of a file by its identifier.
    #[must_use]
    pub fn select_file(by: SelectBy, id: [u8; 2]) -> Self {
        Self::new(Instruction::Select, [by as u8, 0x00], id.to_vec())
    }

    /// The same SELECT without data in the answer (P2 = 0C, no Le; ISO 7816-4 section 7.1.1): some
    /// cards know only that one.
    #[must_use]
    pub fn without_response_data(mut self) -> Self {
        if self.instruction == Instruction::Select {
            self.p2 = 0x0C;
            self.silent = true;
        }
        self
    }

    /// GET DATA of one object in a file, named by a tag list (ISO 7816-4 section 7.4.2, odd INS).
    #[must_use]
    pub fn get_data(file: u16, tag: u32) -> Self {
        let tag: Vec<u8> = tag.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
        let length = tag.len().to_le_bytes()[0];
        let data = [TAG_LIST, length].into_iter().chain(tag).collect();
        Self::new(Instruction::GetDataOdd, file.to_be_bytes(), data)
    }

    /// GET DATA of one object of the selected application (ISO 7816-4 section 7.4.2, even INS).
    #[must_use]
    pub fn get_data_current(tag: u16) -> Self {
        Self::new(Instruction::GetData, tag.to_be_bytes(), Vec::new())
    }

    /// READ BINARY of the selected file (ISO 7816-4 section 7.2.3); offsets have 15 bits.
    #[must_use]
    pub fn read_binary(offset: u16) -> Option<Self> {
        (offset <= 0x7FFF)
            .then(|| Self::new(Instruction::ReadBinary, offset.to_be_bytes(), Vec::new()))
    }

    /// READ RECORD by number in the selected file (ISO 7816-4 section 7.3.3).
    #[must_use]
    pub fn read_record(number: u8) -> Self {
        Self::new(Instruction::ReadRecord, [number, 0x04], Vec::new())
    }

    /// GET RESPONSE: the rest of an answer (ISO 7816-4 section 7.6.1); 0 stands for 256 bytes.
    #[must_use]
    pub fn get_response(available: u8) -> Self {
        Self::new(Instruction::GetResponse, [0, 0], Vec::new()).with_le(available)
    }

    /// GET DATA of the card production life cycle data, of the selected card manager
    /// (GlobalPlatform Card Specification 2.1.1 section 9.3).
    #[must_use]
    pub fn get_cplc() -> Self {
        Self {
            class: CommandClass::GlobalPlatform,
            ..Self::new(Instruction::GetData, [0x9F, 0x7F], Vec::new())
        }
    }

    /// GET DATA of the UID, which a contactless reader answers itself (PC/SC part 3 section
    /// 3.2.2.1.3). A contact reader may hand it to the card.
    #[must_use]
    pub fn get_contactless_uid() -> Self {
        Self { class: CommandClass::Reader, ..Self::new(Instruction::GetData, [0, 0], Vec::new()) }
    }

    /// The serial number of a YubiKey from firmware 5 on, with its PIV application selected.
    #[must_use]
    pub fn yubikey_serial() -> Self {
        Self::new(Instruction::YubikeySerial, [0, 0], Vec::new())
    }

    /// The first page about a YubiKey, with its management application selected.
    #[must_use]
    pub fn yubikey_information() -> Self {
        Self::new(Instruction::YubikeyInformation, [0, 0], Vec::new())
    }

    /// The same command with the Le that the card asked for.
    #[must_use]
    pub fn with_le(mut self, exact: u8) -> Self {
        self.le = Some(exact);
        self
    }

    fn new(instruction: Instruction, [p1, p2]: [u8; 2], data: Vec<u8>) -> Self {
        Self {
            class: CommandClass::Interindustry,
            instruction,
            p1,
            p2,
            data,
            le: None,
            silent: false,
        }
    }

    /// The bytes for the wire (ISO 7816-3 section 12.1.3, cases 2S and 4S).
    ///
    /// On T=0 a command with data goes without Le, because some reader drivers choke on it; it
    /// gets one only after the card itself asked for it.
    #[must_use]
    pub fn to_bytes(&self, protocol: Protocol) -> Vec<u8> {
        let mut bytes = vec![self.class as u8, self.instruction as u8, self.p1, self.p2];
        if !self.data.is_empty() {
            bytes.push(self.data.len().to_le_bytes()[0]);
            bytes.extend(&self.data);
        }
        let answers = protocol == Protocol::T1 && !self.silent;
        if self.data.is_empty() || answers || self.le.is_some() {
            bytes.push(self.le.unwrap_or(0x00));
        }
        bytes
    }
}

/// What a card said: data, and a status word that tells what the data is worth.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ResponseApdu {
    data: Vec<u8>,
    status: StatusWord,
}

impl ResponseApdu {
    /// Splits the last two bytes off; `None` where there are not even two.
    pub(super) fn parse(mut bytes: Vec<u8>) -> Option<Self> {
        let (_, status) = bytes.split_last_chunk::<2>()?;
        let status = StatusWord::from(*status);
        bytes.truncate(bytes.len() - 2);
        Some(Self { data: bytes, status })
    }

    /// What the status word says.
    pub(super) const fn status(&self) -> StatusWord {
        self.status
    }

    /// The data together with what it is worth.
    pub(super) fn into_parts(self) -> (Vec<u8>, StatusWord) {
        (self.data, self.status)
    }
}

/// The status word of a response (ISO 7816-4 section 5.1.3), by what it means for a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusWord {
    /// Done.
    Success,
    /// Done, and more of the answer waits; 0 stands for 256 bytes or more.
    More(u8),
    /// Not done: ask again with this Le.
    WrongLe(u8),
    /// Done, with fewer bytes than asked for.
    EndOfFile,
    /// The card does not have it, or not in this way.
    NotFound(u16),
    /// Not without a PIN or a key.
    SecurityNotSatisfied,
    /// The card or the application came to the end of its life.
    Terminated(u16),
    /// Anything else.
    Unexpected(u16),
}

impl StatusWord {
    /// Whether the card knows the command and does not allow it (69xx; ISO 7816-4 table 6): without a
    /// PIN or a key, or in its present state.
    #[must_use]
    pub const fn is_not_allowed(self) -> bool {
        match self {
            Self::SecurityNotSatisfied => true,
            Self::NotFound(code) | Self::Unexpected(code) => code.to_be_bytes()[0] == 0x69,
            Self::Success
            | Self::More(_)
            | Self::WrongLe(_)
            | Self::EndOfFile
            | Self::Terminated(_) => false,
        }
    }
}

impl From<[u8; 2]> for StatusWord {
    fn from(bytes: [u8; 2]) -> Self {
        match (u16::from_be_bytes(bytes), bytes) {
            (0x9000, _) => Self::Success,
            (_, [0x61, available]) => Self::More(available),
            (_, [0x6C, exact]) => Self::WrongLe(exact),
            (0x6282, _) => Self::EndOfFile,
            (0x6982, _) => Self::SecurityNotSatisfied,
            (code @ (0x6283 | 0x6285), _) => Self::Terminated(code),
            (
                code @ (0x6700 | 0x6985 | 0x6999 | 0x6A81 | 0x6A82 | 0x6A86 | 0x6A87 | 0x6A88
                | 0x6B00 | 0x6D00 | 0x6E00),
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
            Self::WrongLe(exact) => write!(f, "6C{exact:02X} (wrong length)"),
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
    fn nothing_but_reading_instructions_can_be_built() {
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
    fn what_a_card_gives_is_selected_only_where_it_is_a_name() {
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
    fn a_select_without_answer_differs_in_p2_only() {
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
    fn select_goes_by_name_so_that_no_file_can_become_the_current_one_by_accident() {
        assert_eq!(hex(&CommandApdu::select(&AID), Protocol::T1), "00a4040009a0000003974254465900");
    }

    #[test]
    fn on_t0_a_command_with_data_goes_without_le() {
        assert_eq!(hex(&CommandApdu::select(&AID), Protocol::T0), "00a4040009a00000039742544659");
        assert_eq!(hex(&CommandApdu::get_data(0xA000, 0xDF1F), Protocol::T0), "00cba000045c02df1f");
        assert_eq!(
            hex(&CommandApdu::get_data(0xA000, 0xDF1F), Protocol::T1),
            "00cba000045c02df1f00"
        );
    }

    #[test]
    fn on_t0_an_le_goes_out_after_the_card_asked_for_it() {
        let command = CommandApdu::get_data(0xA012, 0xDF20).with_le(0x13);
        assert_eq!(hex(&command, Protocol::T0), "00cba012045c02df2013");
    }

    #[test]
    fn commands_without_data_have_le_on_either_protocol() {
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
    fn an_offset_that_would_name_a_file_instead_is_no_offset() {
        assert_eq!(CommandApdu::read_binary(0x8000), None);
    }

    #[test]
    fn tags_of_one_to_three_bytes_are_named_in_full() {
        let chuid = CommandApdu::get_data(0x3FFF, 0x005F_C102);
        assert_eq!(hex(&chuid, Protocol::T1), "00cb3fff055c035fc10200");
        let discovery = CommandApdu::get_data(0x3FFF, 0x7E);
        assert_eq!(hex(&discovery, Protocol::T1), "00cb3fff035c017e00");
    }

    #[test]
    fn a_response_is_split_before_its_last_two_bytes() {
        let (data, status) = ResponseApdu::parse(vec![1, 2, 0x61, 0x0B]).unwrap().into_parts();
        assert_eq!((data, status), (vec![1, 2], StatusWord::More(0x0B)));
        assert_eq!(ResponseApdu::parse(vec![0x90]), None);
        assert_eq!(ResponseApdu::parse(vec![]), None);
    }

    #[test]
    fn status_words_fall_into_their_classes() {
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
