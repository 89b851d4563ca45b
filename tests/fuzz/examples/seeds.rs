//! Makes the seeds that the corpus grew from: virtual cards, asked and written down; what documents
//! and tests show. `tests/fuzz/run seeds` calls this and keeps what adds coverage.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cardbridge::card::{CommandApdu, ProbeTarget, Protocol, Transmit, TransmitError, identify};
use cardbridge::config::{KEYS, example};
use cardbridge::domain::{Atr, Family, Inventory, ProbePlan};
use cardbridge_fuzz::hostile::{ATRS, IN_USE, T0, TORN_OUT, encode};
use cardbridge_harness::cards::{Card, load};

/// The longest seed; longer ones are slow and show nothing more.
const LONGEST: usize = 4096;

/// Answers with 61xx and 6Cxx in them, those of the tests in `src/card/exchange.rs` among them.
const CHAINS: [&[&str]; 12] = [
    &["df20103ff188bc6102", "ba836101", "379000"],
    &["6103", "0102039000"],
    &["016100", "029000"],
    &["6c02", "01029000"],
    &["6c02", "6c03"],
    &["6105", "6c02", "01029000"],
    &["016282", "6282"],
    &["6101", "006101"],
    &["6101", "6c01", "006101", "6c01", "006101", "6c01", "006101"],
    &["90", "", "6a82"],
    &["0102039000", "0405066282", "6b00"],
    &["00610a", "0102036c05", "0102036105", "04059000", "9000"],
];

/// CM's answers: the documentation's card, a request, errors of CM's and of others'.
const BODIES: [&str; 16] = [
    r#"{"Uuid":"17cf063d-e337-4aa9-a822-346554ddd3c9","Status":6,"Flags":1,"ParentSmartcardUuid":"00000000-0000-0000-0000-000000000000","AssignedUserUuid":"8f1590dc-d932-4b66-8e68-2e91c5880780","Comment":"","SerialNumber":"{bc88f13f-83ba-4037-8262-46eba1291c6e}","Middleware":"MSBaseCSP","Atr":"3b8d0180fba000000397425446590301c8"}"#,
    r#"[{"UUID":"{17CF063D-E337-4AA9-A822-346554DDD3C9}","STATUS":"2","serialnumber":" x ","X":[[1,2.5],{"y":["],{\\\""]}]},null,{"Uuid":"8f1590dcd9324b668e682e91c5880780","Status":-1,"Atr":null}]"#,
    r#"[{"Uuid":"0c96d73f-967b-420e-854a-43ad2a1504bc","RequestType":5,"Status":3,"DataCollection":[{"Name":"Sample Data Item","Value":null}],"Submitted":"2015-07-07T23:40:33.133Z","Completed":"0001-01-01T00:00:00","NewSmartcardUuid":"17cf063d-e337-4aa9-a822-346554ddd3c9","OldSmartcardUuid":"17cf063d-e337-4aa9-a822-346554ddd3c9","SecurityDescriptor":"O:S-1-5-21-1\u0000"}]"#,
    r#"[{"Uuid":"0c96d73f-967b-420e-854a-43ad2a1504bc","RequestType":7,"Status":3,"Submitted":"0001-01-01T00:00:00","OldSmartcardUuid":"00000000-0000-0000-0000-000000000000","NewSmartcardUuid":"17cf063d-e337-4aa9-a822-346554ddd3c9"} , {"RequestType":"7","OldSmartcardUuid":"17cf063d-e337-4aa9-a822-346554ddd3c9"}]"#,
    "\u{feff}[ ]\n",
    "null",
    "[null, null]",
    "",
    "[{}, 17, true, \"ok\", 1.5, [[]]]",
    r#"{"Status":2,"status":3}"#,
    r#"{"Message":"An error occurred. Correlation ID: 6f1c1f8e-5a52-4dd6-9a62-1c5f3b7a9d10"}"#,
    r#"{"error":"invalid_token","error_description":"Card 17cf063d-e337-4aa9-a822-346554ddd3c9 failed, correlatie-id 6f1c1f8e-5a52-4dd6-9a62-1c5f3b7a9d10"}"#,
    r#""Service Unavailable""#,
    "<!DOCTYPE html><html><head><title>\r\n 404 -\tFile not found </title><style>b{}</style></head><body><p>no</p></body></html>",
    "<html><title></title><b>Correlation ID: {6F1C1F8E-5A52-4DD6-9A62-1C5F3B7A9D10}</b>\0<i>here</i>",
    r#"{"Uuid":"\u00317cf063d-e337-4aa9-a822-346554ddd3c9","Status":"6","Middleware":"\ud83d\ude00"}"#,
];

/// Files that are right, wrong, and no TOML; `MINIMAL` stands before each.
const FILES: [&str; 12] = [
    "",
    "timeout = \"1s\"\nconnect_timeout = \"500ms\"\nconcurrency = 64\nca_file = \"ca.pem\"\napi_path = \"\"\n",
    "auth.method = \"bearer\"\nauth.token_file = \"cm-token\"\n",
    "[cm.numbers.request_type]\nEnroll = 12\nMove = 0x2A\n[cm.numbers.card_status]\nLost = 6\n[[rule]]\nname = \"a\"\nrequest_type = [\"Move\"]\nset_status = \"lost\"\ncard_status = [\"Active\"]\nreader_role = [\"desk\"]\n",
    "[cards]\nfamilies = [\"piv\", \"gids\"]\nskip_atr = [\"3b??\"]\natr_mismatch = \"refuse\"\n[[card]]\nmatch = \"3bfd1300008131fe158073c021c057597562694b6579??\"\nid_rule = \"piv-guid-le\"\n[[card]]\nmatch = \"3b8?01\"\nfamilies = [\"openpgp\"]\n",
    "[[reader]]\nmatch = \"*Omnikey [CCID]*\"\nlabel = \"Desk 3, left\"\n[[reader]]\nmatch = \"*\"\nrole = \"lab\"\nenabled = false\n",
    "[outbox]\npath = \"/x/o.db\"\nmax_entries = 1\nmax_age = \"30d 1h\"\nretry_min = \"10ms\"\nretry_max = \"10ms\"\n[control]\nsocket = \"/x/o.sock\"\n[log]\nlevel = \"trace\"\nformat = \"json\"\nshow_ids = false\n",
    "concurency = 8\nurl = 1\n[rule]\n[[reader]]\n[log]\nlevel = \"loud\"\n",
    "timeout = \"10 bananas\"\nproxy = \"http://x\"\nauth.keytab = 1979-05-27T07:32:00Z\nnumbers.card_status.\"a b\" = 1.5\n",
    "timeout = \"10s\nconcurrency = \n",
    "\0[log]\nlevel = \"debug\"\0CARDBRIDGE_LOG__LEVEL=warn\0CARDBRIDGE_CM__CONCURRENCY=x\0CARDBRIDGE_CM__URL=http://127.0.0.1:8080/",
    "\0CARDBRIDGE_CM__NUMBERS__CARD_STATUS__LOST=7\0CARDBRIDGE_RULE__NAME=x\0CARDBRIDGE_NOTHING=1\0[[rule]]\nname = 1\n",
];

const MINIMAL: &str = "[cm]\nurl = \"https://cm.example.com:8443\"\n";

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let out = std::env::args().nth(1).context("where do the seeds go?")?;
    let mut seeds = Seeds { out: out.into(), count: 0 };
    for entry in fs::read_dir(root.join("tests/cards"))? {
        of_card(&entry?.path(), &mut seeds)?;
    }
    for chain in CHAINS {
        let answers: Vec<_> = chain.iter().map(hex::decode).collect::<Result<_, _>>()?;
        for circumstances in [0, T0, TORN_OUT] {
            seeds.add("exchange", &encode(circumstances, &answers))?;
        }
    }
    // Every ATR that the document knows by name stands there in backticks.
    for text in fs::read_to_string(root.join("docs/cards.md"))?.split('`') {
        if let Ok(atr) = text.parse::<Atr>() {
            seeds.add("atr", atr.as_bytes())?;
        }
    }
    for text in ["3B8D0180FBA000000397425446590301C8", "3b8d??", "3b8", "3b8f8001804f0c??"] {
        seeds.add("atr", text.as_bytes())?;
    }
    for body in BODIES {
        seeds.add("cm_json", body.as_bytes())?;
    }
    of_config(&root, &mut seeds)
}

/// Where seeds go.
struct Seeds {
    out: PathBuf,
    count: usize,
}

impl Seeds {
    fn add(&mut self, target: &str, seed: &[u8]) -> Result<()> {
        if seed.len() <= LONGEST {
            let directory = self.out.join(target);
            fs::create_dir_all(&directory)?;
            fs::write(directory.join(format!("seed-{:05}", self.count)), seed)?;
            self.count += 1;
        }
        Ok(())
    }
}

fn of_config(root: &Path, seeds: &mut Seeds) -> Result<()> {
    for file in FILES {
        seeds.add("config", format!("{MINIMAL}{file}").as_bytes())?;
    }
    for part in example().split("\n\n") {
        // The example's keys stand behind a #; what it explains, behind a # and a blank.
        let lines = part.lines().map(|line| match line.strip_prefix('#') {
            Some(set) if !set.starts_with(' ') => set,
            _ => line,
        });
        let file = lines.collect::<Vec<_>>().join("\n");
        seeds.add("config", format!("{MINIMAL}\0{file}").as_bytes())?;
    }
    for block in fs::read_to_string(root.join("docs/configure.md"))?.split("```toml\n").skip(1) {
        seeds.add("config", block.split("```").next().unwrap_or_default().as_bytes())?;
    }
    for key in KEYS {
        let Some(variable) = key.variable() else { continue };
        let value = key.example.trim_matches('"');
        seeds.add("config", format!("{MINIMAL}\0{variable}={value}").as_bytes())?;
    }
    Ok(())
}

/// What a virtual card says to each family, in all circumstances.
fn of_card(file: &Path, seeds: &mut Seeds) -> Result<()> {
    for family in Family::ALL {
        for (number, protocol) in (0_u8..).zip([Protocol::T1, Protocol::T0]) {
            for (high, atr) in (0_u8..).zip(ATRS) {
                let atr = Atr::try_from(atr)?;
                let mut reader = Reader { card: load(file)?, protocol, answers: Vec::new() };
                reader.card.power();
                for in_use in [false, true] {
                    reader.answers.clear();
                    let plan = ProbePlan { families: vec![family], id_rule: None, inventory: true };
                    let subject = ProbeTarget { atr: &atr, plan: &plan, in_use };
                    // What comes of it is not the question here.
                    drop(identify(&mut reader, subject, &mut Inventory::default()));
                    let circumstances = high << 4 | number | if in_use { IN_USE } else { 0 };
                    seeds.add(family.as_str(), &encode(circumstances, &reader.given()))?;
                }
                if high == 0 {
                    for answer in reader.given() {
                        let (data, _) = answer.split_at(answer.len().saturating_sub(2));
                        seeds.add("tlv", data)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// A reader that writes down what its card says.
struct Reader {
    card: Box<dyn Card>,
    protocol: Protocol,
    answers: Vec<Vec<u8>>,
}

impl Reader {
    /// Every answer; the last one counts for ever, so that the same ones before it are left out.
    fn given(&self) -> Vec<Vec<u8>> {
        let mut answers = self.answers.clone();
        let last = answers.last().cloned();
        while answers.last() == last.as_ref() && last.is_some() {
            answers.pop();
        }
        answers.extend(last);
        answers
    }
}

impl Transmit for Reader {
    fn transmit(&mut self, command: &CommandApdu) -> Result<Vec<u8>, TransmitError> {
        let answer = self.card.command(&command.to_bytes(self.protocol));
        self.answers.push(answer.clone());
        Ok(answer)
    }

    fn protocol(&self) -> Protocol {
        self.protocol
    }
}
