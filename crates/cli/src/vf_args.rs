//! A VF on the command line: the keys of a `[[partition.vf]]` of a Spec as options.

use clap::{
    ArgAction, Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use ioward_model::{
    Apart, BitRate, Capability, Class, FailureDomain, Guarantee, GuestMay, LinkState, MacAddress, Name,
    NumaPolicy, Subclass, UnitError, VfRequest, Vlan, for_each_setting,
};
use ioward_pci::Bdf;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::pf_ref::PfRef;

/// A VF request, all but its name.
#[derive(Debug, Args)]
pub struct VfArgs {
    /// The class of the VF
    #[arg(long, value_parser = one_of::<Class>(&["network", "nvme", "display", "accelerator", "other"]))]
    pub class: Class,
    /// The kind of that class
    #[arg(long, value_name = "KIND", value_parser = one_of::<Subclass>(
        &["ethernet", "infiniband", "fabric", "vga", "3d", "encryption", "processing", "coprocessor"]
    ))]
    subclass: Option<Subclass>,
    /// The slowest link that will do, as 10G or 10Gbit
    #[arg(long, value_name = "RATE")]
    min_link_speed: Option<BitRate>,
    /// The port must have a link now
    #[arg(long)]
    carrier: bool,
    /// The least that the adapter's PCIe link must carry in one direction
    #[arg(long, value_name = "RATE")]
    min_pcie_bandwidth: Option<BitRate>,
    /// Whether it should, or must, be on the partition's NUMA node
    #[arg(long, value_parser = one_of::<NumaPolicy>(&["prefer", "require"]))]
    numa: Option<NumaPolicy>,
    /// Capabilities that its adapter must have; may be repeated
    #[arg(long, value_name = "WHAT", value_delimiter = ',', action = ArgAction::Append, value_parser =
        one_of::<Capability>(&Capability::ALL.map(Capability::as_str)))]
    needs: Vec<Capability>,
    /// The fewest MSI-X vectors that will do
    #[arg(long, value_name = "N")]
    min_msix_vectors: Option<u16>,
    /// The fewest NVMe namespaces that its controller must have
    #[arg(long, value_name = "N")]
    min_namespaces: Option<u16>,
    /// A VF it must share no adapter with: net0, or db/net0 of another partition; :port or :numa-node after it says
    /// what else they must not share, :prefer makes it a wish; may be repeated
    #[arg(long, value_name = "VF", action = ArgAction::Append, value_parser = apart)]
    apart_from: Vec<Apart>,
    /// The physical function it must come from, as 0000:01:00.0 or enp1s0
    #[arg(long)]
    pub pf: Option<PfRef>,
    /// The VF index it must have
    #[arg(long, requires = "pf", value_name = "N")]
    index: Option<u16>,
    #[command(flatten)]
    settings: SettingArgs,
    /// Settings that the guest may change: names (mac,reset) or one narrowed (vlan=100-110); may be repeated
    #[arg(long, value_name = "WHAT", action = ArgAction::Append, value_parser = guest_may_words)]
    guest_may: Vec<Map<String, Value>>,
}

impl VfArgs {
    /// As the API takes it, under this name, from the physical function that [`Self::pf`] names.
    ///
    /// # Errors
    /// When the permissions make no sense together.
    pub fn into_request(self, name: Name, pf: Option<Bdf>) -> Result<VfRequest, serde_json::Error> {
        let guest_may: GuestMay = serde_json::from_value(self.guest_may.into_iter().flatten().collect())?;
        let request = VfRequest {
            class: self.class,
            subclass: self.subclass,
            min_link_speed: self.min_link_speed,
            carrier: self.carrier,
            min_pcie_bandwidth: self.min_pcie_bandwidth,
            numa: self.numa,
            needs: self.needs,
            min_msix_vectors: self.min_msix_vectors,
            min_namespaces: self.min_namespaces,
            apart_from: self.apart_from,
            pf,
            index: self.index,
            guest_may,
            ..VfRequest::new(name, self.class)
        };
        Ok(self.settings.put_into(request))
    }
}

macro_rules! setting_args {
    ($(
        $setting:ident $number:tt $field:ident: $kind:ident($type:ty), asked [$($asked:ty)?],
        $class:ident needs [$($capability:ident)?], $description:literal;
    )*) => {
        /// An option for each setting of the table that a Spec speaks of.
        #[derive(Debug, Args)]
        struct SettingArgs {
            $($(
                #[arg(
                    long,
                    help = $description,
                    value_name = <$asked as Flag>::FORM,
                    value_parser = <$asked as Flag>::parser(),
                    hide_possible_values = true
                )]
                $field: Option<$asked>,
            )?)*
        }

        impl SettingArgs {
            fn put_into(self, request: VfRequest) -> VfRequest {
                VfRequest { $($($field: self.$field.map(std::convert::identity::<$asked>),)?)* ..request }
            }
        }
    };
}

for_each_setting!(setting_args);

/// The value of an option that is a setting.
trait Flag: Clone + Send + Sync + 'static {
    /// How it is written, for the help.
    const FORM: &'static str;

    fn parser() -> impl TypedValueParser<Value = Self>;
}

/// Types whose written form is all there is to them.
macro_rules! written {
    ($($type:ty as $form:literal),*) => {$(
        impl Flag for $type {
            const FORM: &'static str = $form;

            fn parser() -> impl TypedValueParser<Value = Self> {
                |text: &str| text.parse::<Self>().map_err(|error| error.to_string())
            }
        }
    )*};
}

written!(Vlan as "ID", Guarantee as "RATE", BitRate as "RATE", u16 as "N");

impl Flag for MacAddress {
    const FORM: &'static str = "MAC";

    fn parser() -> impl TypedValueParser<Value = Self> {
        unicast
    }
}

impl Flag for bool {
    const FORM: &'static str = "on|off";

    fn parser() -> impl TypedValueParser<Value = Self> {
        PossibleValuesParser::new(["on", "off"]).map(|word| word == "on")
    }
}

impl Flag for LinkState {
    const FORM: &'static str = "auto|enable|disable";

    fn parser() -> impl TypedValueParser<Value = Self> {
        one_of(&Self::ALL.map(Self::as_str))
    }
}

/// The words of a model type that has a fixed set of them; serde knows which word is which value.
fn one_of<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    words: &[&'static str],
) -> impl TypedValueParser<Value = T> + use<T> {
    PossibleValuesParser::new(words.iter().copied())
        .try_map(|word| serde_json::from_value::<T>(Value::String(word)))
}

/// An address that one station can have.
fn unicast(text: &str) -> Result<MacAddress, String> {
    let mac: MacAddress = text.parse().map_err(|error: UnitError| error.to_string())?;
    let wrong = || format!("{mac} is no address for one station (multicast or zero)");
    mac.is_unicast().then_some(mac).ok_or_else(wrong)
}

/// One `--apart-from`: a VF, then what they must not share and whether that is a wish, in any order.
///
/// # Errors
/// When it is none, with what would be right.
pub fn apart(text: &str) -> Result<Apart, String> {
    let mut words = text.split(':');
    let vf = words
        .next()
        .unwrap_or_default()
        .parse()
        .map_err(|error: ioward_model::NameError| error.to_string())?;
    let mut apart = Apart { vf, by: FailureDomain::Adapter, prefer: false };
    for word in words {
        match word {
            "prefer" => apart.prefer = true,
            "port" => apart.by = FailureDomain::Port,
            "adapter" => apart.by = FailureDomain::Adapter,
            "numa-node" => apart.by = FailureDomain::NumaNode,
            _ => return Err(format!("':{word}' is unknown; use :port, :adapter, :numa-node or :prefer")),
        }
    }
    Ok(apart)
}

/// One `--guest-may`: names without a bound, or one name with its bound (which may itself hold commas).
///
/// # Errors
/// When a guest may do no such thing, or not so much of it.
pub fn guest_may_words(text: &str) -> Result<Map<String, Value>, String> {
    let words: Map<String, Value> = match text.split_once('=') {
        Some((name, bound)) => [(name.to_owned(), Value::from(bound))].into_iter().collect(),
        None => text.split(',').map(|name| (name.trim().to_owned(), Value::Bool(true))).collect(),
    };
    let checked: Result<GuestMay, _> = serde_json::from_value(Value::Object(words.clone()));
    checked.map(|_| words).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn attach(arguments: &[&str]) -> Result<VfRequest, String> {
        let all = ["ioward", "attach", "web", "net0"].iter().chain(arguments);
        match Cli::try_parse_from(all).map_err(|e| e.to_string())?.command {
            Command::Attach { vf, what, .. } => {
                let pf = match &what.pf {
                    Some(PfRef::Address(pf)) => Some(*pf),
                    _ => None,
                };
                Ok(what.into_request(vf, pf).unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn attach_takes_what_a_spec_takes() {
        let vf = attach(&[
            "--class=network",
            "--subclass=ethernet",
            "--min-link-speed=10G",
            "--carrier",
            "--min-pcie-bandwidth=16Gbit",
            "--numa=require",
            "--needs=rdma,vlan",
            "--needs=trust",
            "--min-msix-vectors=3",
            "--apart-from=net1",
            "--apart-from=db/net0:port:prefer",
            "--pf=01:00.0",
            "--index=2",
            "--mac=52:54:00:aa:00:01",
            "--vlan=7",
            "--trust=on",
            "--spoofchk=off",
            "--min-tx-rate=25%",
            "--max-tx-rate=9G",
            "--link-state=enable",
            "--guest-may=mac,reset",
            "--guest-may=vlan=100-110,200",
        ]);
        let text = r#"{"name":"net0","class":"network","subclass":"ethernet","min_link_speed":"10Gbit","carrier":true,
            "min_pcie_bandwidth":"16Gbit","numa":"require","needs":["rdma","vlan","trust"],"min_msix_vectors":3,
            "apart_from":[{"vf":"net1"},{"vf":"db/net0","by":"port","prefer":true}],
            "pf":"0000:01:00.0","index":2,"mac":"52:54:00:aa:00:01","vlan":7,"trust":true,"spoofchk":false,
            "min_tx_rate":"25%","max_tx_rate":"9Gbit","link_state":"enable",
            "guest_may":{"mac":true,"reset":true,"vlan":"100-110,200"}}"#;
        assert_eq!(vf.unwrap(), serde_json::from_str(text).unwrap());
        let disk = attach(&["--class=nvme", "--min-namespaces=2", "--queues=4", "--interrupts=3"]);
        let text = r#"{"name":"net0","class":"nvme","min_namespaces":2,"queues":4,"interrupts":3}"#;
        assert_eq!(disk.unwrap(), serde_json::from_str(text).unwrap());
    }

    #[test]
    fn a_wrong_value_says_what_would_be_right() {
        let wrong: [(&[&str], &str); 13] = [
            (&["--class", "netwrok"], "'network'"),
            (&["--class", "network", "--vlan", "4095"], "use 1 to 4094"),
            (&["--class", "network", "--mac", "52:54"], "write six bytes"),
            (&["--class", "network", "--mac", "01:00:5e:00:00:01"], "multicast"),
            (&["--class", "network", "--index", "1"], "--pf"),
            (&["--class", "network", "--guest-may", "vlna"], "did you mean 'vlan'?"),
            (&["--class", "network", "--guest-may", "vlan=9-5"], "does not narrow vlan"),
            (&["--class", "network", "--trust", "maybe"], "[possible values: on, off]"),
            (&["--class", "network", "--needs", "rdam"], "'rdma'"),
            (&["--class", "network", "--min-link-speed", "10"], "write 500Mbit or 10Gbit"),
            (&["--class", "network", "--min-tx-rate", "101%"], "use 1% to 100%"),
            (
                &["--class", "network", "--apart-from", "net1:rack"],
                "use :port, :adapter, :numa-node or :prefer",
            ),
            (&["--class", "network", "--apart-from", ":port"], "is no name"),
        ];
        for (arguments, remedy) in wrong {
            let error = attach(arguments).unwrap_err();
            assert!(error.contains(remedy), "{error}");
        }
    }
}
