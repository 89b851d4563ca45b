//! CM's objects and numbers, spelled as CM spells them.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How CM prints a time that is not set: without a zone.
pub const UNSET_TIME: &str = "0001-01-01T00:00:00";

/// `SmartcardStatus`, by number.
pub const CARD_STATUS: [(&str, u32); 6] = [
    ("New", 0),
    ("Assigned", 1),
    ("Active", 2),
    ("Disabled", 3),
    // Documented by name only; 4 or 5.
    ("Suspended", 4),
    ("Retired", 6),
];

/// `RequestStatus`, by number.
pub const REQUEST_STATUS: [(&str, u32); 8] = [
    ("None", 0),
    ("Approved", 3),
    ("Denied", 4),
    ("Completed", 8),
    ("Failed", 9),
    ("Pending", 16),
    ("Canceled", 17),
    ("Executing", 18),
];

/// `RequestType`, by number.
pub const REQUEST_TYPE: [(&str, u32); 11] = [
    ("Enroll", 1),
    ("Recover", 2),
    ("Renew", 3),
    ("Disable", 4),
    ("Unblock", 5),
    ("Duplicate", 6),
    ("Retire", 7),
    ("RecoverOnBehalf", 8),
    ("SuspendOrReinstate", 9),
    ("OnlineUpdate", 10),
    ("TemporaryCardEnroll", 11),
];

/// The number of a name in one of the tables above, in any case.
#[must_use]
pub fn number(table: &[(&str, u32)], name: &str) -> Option<u32> {
    let mut entries = table.iter();
    let found = entries.find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, number)| *number)
}

/// In which case CM prints the GUIDs of an object. Both occur.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Casing {
    /// Lower case.
    #[default]
    Lower,
    /// Upper case.
    Upper,
}

/// A smart card as CM knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(missing_docs, reason = "the fields are CM's own, under CM's own names")]
pub struct Record {
    pub uuid: Uuid,
    pub status: u32,
    pub flags: u32,
    pub parent_smartcard_uuid: Uuid,
    pub primary_smartcard_uuid: Uuid,
    pub permanent_smartcard_uuid: Uuid,
    pub assigned_user_uuid: Uuid,
    pub profile_template_uuid: Uuid,
    pub profile_template_version: u32,
    pub comment: String,
    pub serial_number: String,
    pub middleware: String,
    pub atr: String,
    #[serde(skip_serializing)]
    pub casing: Casing,
}

impl Record {
    /// The record of the documentation's example.
    #[must_use]
    pub fn seed() -> Self {
        Self {
            uuid: Uuid::from_u128(0x17cf_063d_e337_4aa9_a822_3465_54dd_d3c9),
            status: 2,
            flags: 1,
            assigned_user_uuid: Uuid::from_u128(0x8f15_90dc_d932_4b66_8e68_2e91_c588_0780),
            profile_template_uuid: Uuid::from_u128(0xa039_b4d0_5ce8_4eff_8651_181c_6576_fda3),
            profile_template_version: 46,
            serial_number: "{bc88f13f-83ba-4037-8262-46eba1291c6e}".to_owned(),
            middleware: "MSBaseCSP".to_owned(),
            atr: "3b8d0180fba000000397425446590301c8".to_owned(),
            ..Self::default()
        }
    }

    /// A record like the seed's, under an id of its own, of the card with this
    /// GUID.
    #[must_use]
    pub fn of_card(card: Uuid) -> Self {
        Self { uuid: Uuid::new_v4(), serial_number: card.braced().to_string(), ..Self::seed() }
    }

    /// CM's JSON.
    #[must_use]
    pub fn json(&self) -> String {
        render(self, self.casing)
    }
}

/// An item of a request's data collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "the fields are CM's own, under CM's own names")]
pub struct DataItem {
    pub name: String,
    pub value: Option<String>,
}

/// A request as CM knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(missing_docs, reason = "the fields are CM's own, under CM's own names")]
pub struct Request {
    pub uuid: Uuid,
    pub request_type: u32,
    pub status: u32,
    pub flags: u32,
    pub data_collection: Vec<DataItem>,
    pub data_collection_flags: u32,
    pub originator_user_uuid: Uuid,
    pub target_user_uuid: Uuid,
    pub submitted: String,
    pub completed: String,
    pub new_profile_uuid: Uuid,
    pub old_profile_uuid: Uuid,
    pub new_smartcard_uuid: Uuid,
    pub old_smartcard_uuid: Uuid,
    pub priority: u32,
    pub comment: String,
    pub profile_template_uuid: Uuid,
    pub security_descriptor: String,
    pub is_smartcard: bool,
    pub is_enrollment_agent: bool,
    pub is_data_collection_complete: bool,
    #[serde(skip_serializing)]
    pub casing: Casing,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            uuid: Uuid::nil(),
            request_type: 0,
            status: 0,
            flags: 2,
            data_collection: vec![DataItem { name: "Sample Data Item".to_owned(), value: None }],
            data_collection_flags: 32,
            originator_user_uuid: Uuid::nil(),
            target_user_uuid: Uuid::nil(),
            submitted: "2015-07-07T23:40:33.13Z".to_owned(),
            completed: UNSET_TIME.to_owned(),
            new_profile_uuid: Uuid::nil(),
            old_profile_uuid: Uuid::nil(),
            new_smartcard_uuid: Uuid::nil(),
            old_smartcard_uuid: Uuid::nil(),
            priority: 0,
            comment: String::new(),
            profile_template_uuid: Uuid::nil(),
            security_descriptor: "O:S-1-5-21-1-2-3-500G:DUD:(A;;GA;;;SY)\0\0\0\0".to_owned(),
            is_smartcard: true,
            is_enrollment_agent: false,
            is_data_collection_complete: false,
            casing: Casing::Lower,
        }
    }
}

impl Request {
    /// The approved Retire request of the documentation's example.
    #[must_use]
    pub fn seed() -> Self {
        Self {
            uuid: Uuid::from_u128(0xb105_403d_d021_41ea_9f11_be3d_677d_229e),
            ..Self::approved(7, &Record::seed())
        }
    }

    /// An approved request of this type (see [`REQUEST_TYPE`]) that names
    /// `record` as old and as new card.
    #[must_use]
    pub fn approved(request_type: u32, record: &Record) -> Self {
        Self {
            uuid: Uuid::new_v4(),
            request_type,
            status: 3,
            originator_user_uuid: record.assigned_user_uuid,
            target_user_uuid: record.assigned_user_uuid,
            new_smartcard_uuid: record.uuid,
            old_smartcard_uuid: record.uuid,
            profile_template_uuid: record.profile_template_uuid,
            ..Self::default()
        }
    }

    /// Whether the request is Approved or Executing.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.status, 3 | 18)
    }

    /// Whether the request is about the card with this record id.
    #[must_use]
    pub fn names(&self, record: Uuid) -> bool {
        self.new_smartcard_uuid == record || self.old_smartcard_uuid == record
    }

    /// CM's JSON.
    #[must_use]
    pub fn json(&self) -> String {
        render(self, self.casing)
    }
}

fn render(object: &impl Serialize, casing: Casing) -> String {
    let json = serde_json::to_string(object).unwrap_or_default();
    match casing {
        Casing::Lower => json,
        Casing::Upper => upper_guids(&json),
    }
}

/// `json` with every GUID in it in upper case.
fn upper_guids(json: &str) -> String {
    const LENGTH: usize = 36;
    let mut result = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(first) = rest.chars().next() {
        let guid = rest
            .get(..LENGTH)
            .filter(|text| text.get(8..9) == Some("-") && Uuid::try_parse(text).is_ok());
        let length = guid.map_or(first.len_utf8(), str::len);
        let (head, tail) = rest.split_at(length);
        match guid {
            Some(guid) => result.push_str(&guid.to_uppercase()),
            None => result.push_str(head),
        }
        rest = tail;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_record_is_the_documented_one_but_for_its_status() {
        assert_eq!(
            Record::seed().json(),
            concat!(
                r#"{"Uuid":"17cf063d-e337-4aa9-a822-346554ddd3c9","Status":2,"Flags":1,"#,
                r#""ParentSmartcardUuid":"00000000-0000-0000-0000-000000000000","#,
                r#""PrimarySmartcardUuid":"00000000-0000-0000-0000-000000000000","#,
                r#""PermanentSmartcardUuid":"00000000-0000-0000-0000-000000000000","#,
                r#""AssignedUserUuid":"8f1590dc-d932-4b66-8e68-2e91c5880780","#,
                r#""ProfileTemplateUuid":"a039b4d0-5ce8-4eff-8651-181c6576fda3","#,
                r#""ProfileTemplateVersion":46,"Comment":"","#,
                r#""SerialNumber":"{bc88f13f-83ba-4037-8262-46eba1291c6e}","#,
                r#""Middleware":"MSBaseCSP","Atr":"3b8d0180fba000000397425446590301c8"}"#
            )
        );
    }

    #[test]
    fn only_guids_can_be_upper_case() {
        let record = Record { casing: Casing::Upper, ..Record::seed() };
        let json = record.json();
        assert!(json.contains(r#""Uuid":"17CF063D-E337-4AA9-A822-346554DDD3C9""#));
        assert!(json.contains(r#""{BC88F13F-83BA-4037-8262-46EBA1291C6E}""#));
        assert!(json.contains(r#""Atr":"3b8d0180fba0"#));
    }

    #[test]
    fn a_request_ends_its_descriptor_in_nulls_and_has_no_completion_time() {
        let json = Request::seed().json();
        assert!(json.contains(r"(A;;GA;;;SY)\u0000\u0000\u0000\u0000"), "{json}");
        assert!(json.contains(r#""Completed":"0001-01-01T00:00:00""#));
        assert!(json.contains(r#""RequestType":7,"Status":3"#));
    }
}
