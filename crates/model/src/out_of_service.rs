//! Adapters, and single VFs, that are out of service: nothing of them is given to anybody until a person says otherwise.
//!
//! ```text
//!   in service ── TakeOutOfService ──> out of service: Why, and since when
//!        <── ReturnToService ──────────┘
//! ```
//!
//! That outlives the daemon and the host's boot, and whatever partitions hold. VFs that partitions have there stay theirs until
//! they are moved.

use serde::{Deserialize, Serialize};

use crate::{Identity, VfId, utc};

/// An adapter that is out of service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutOfService {
    /// Since when, in milliseconds since 1970 (UTC). 0 in a plan, which can't know it: it is noted as it is carried out.
    pub since_ms: u64,
    /// Why.
    pub why: Why,
    /// The VF that it is: one that is locked out by itself, and noted at its own address. `None`: an adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vf: Option<VfId>,
    /// Who it is, whatever its address; `None`: no mark tells it from others. Left out of the inventory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

/// Why an adapter is out of service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// A person took it out.
    Evacuated,
    /// It failed too often.
    Failed {
        /// What failed, in words.
        what: String,
    },
}

impl OutOfService {
    /// What is found of the adapter, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        let what = match &self.why {
            Why::Evacuated => "it was taken out of service".to_owned(),
            Why::Failed { what } => format!("it is locked out: {what}"),
        };
        if self.since_ms == 0 { what } else { format!("{what}, {}", utc::time(self.since_ms)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_it_is_read() {
        let evacuated = OutOfService { since_ms: 5, why: Why::Evacuated, vf: None, identity: None };
        let failed = OutOfService { why: Why::Failed { what: "no link".to_owned() }, ..evacuated.clone() };
        for (value, text) in [
            (evacuated, r#"{"since_ms":5,"why":"evacuated"}"#),
            (failed, r#"{"since_ms":5,"why":{"failed":{"what":"no link"}}}"#),
        ] {
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
            assert_eq!(serde_json::from_str::<OutOfService>(text).unwrap(), value);
        }
    }
}
