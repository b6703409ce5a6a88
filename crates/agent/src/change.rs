//! Settings as they are written on the command line: `mac=52:54:00:aa:00:01 vlan=5`.

use ioward_model::{BitRate, LinkState, MacAddress, VfSettings, Vlan};

/// The settings there are, for messages.
const KEYS: &str =
    "mac, vlan, trust, spoofchk, min_tx_rate, max_tx_rate, link_state, queues, interrupts, online";

/// Settings from words of the form `key=value`.
///
/// # Errors
/// The word that makes no sense, why, and what would.
pub fn parse(words: &[String]) -> Result<VfSettings, String> {
    let mut change = VfSettings::default();
    for word in words {
        let (key, value) =
            word.split_once('=').ok_or_else(|| format!("'{word}': write KEY=VALUE, as vlan=5"))?;
        let known = match key {
            "mac" => once(&mut change.mac, mac(value)),
            "vlan" => once(&mut change.vlan, value.parse::<Vlan>().map_err(|error| error.to_string())),
            "trust" => once(&mut change.trust, on_off(value)),
            "spoofchk" => once(&mut change.spoofchk, on_off(value)),
            "min_tx_rate" => once(&mut change.min_tx_rate, rate(value)),
            "max_tx_rate" => once(&mut change.max_tx_rate, rate(value)),
            "link_state" => once(&mut change.link_state, link_state(value)),
            "queues" => once(&mut change.queues, count(value)),
            "interrupts" => once(&mut change.interrupts, count(value)),
            "online" => once(&mut change.online, on_off(value)),
            _ => Err(format!("there is no such setting; there are {KEYS}")),
        };
        known.map_err(|why| format!("{word}: {why}"))?;
    }
    Ok(change)
}

fn once<T>(setting: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    match setting.replace(value?) {
        None => Ok(()),
        Some(_) => Err("the same setting comes twice".to_owned()),
    }
}

fn mac(text: &str) -> Result<MacAddress, String> {
    let mac: MacAddress = text.parse().map_err(|error: ioward_model::UnitError| error.to_string())?;
    if mac.is_unicast() {
        Ok(mac)
    } else {
        Err("a VF needs a unicast address; this is multicast or all zero".into())
    }
}

fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err("use on or off".to_owned()),
    }
}

fn rate(text: &str) -> Result<BitRate, String> {
    // Nothing per second is the same in every unit.
    if text == "0" { Ok(BitRate::from_megabits(0)) } else { text.parse().map_err(|error| format!("{error}")) }
}

fn link_state(text: &str) -> Result<LinkState, String> {
    match text {
        "auto" => Ok(LinkState::Auto),
        "enable" => Ok(LinkState::Enable),
        "disable" => Ok(LinkState::Disable),
        _ => Err("use auto, enable or disable".to_owned()),
    }
}

fn count(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "use a number from 0 to 65535".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn every_setting_can_be_written() {
        let text = "mac=52:54:00:aa:00:01 vlan=5 trust=on spoofchk=off min_tx_rate=0Mbit max_tx_rate=10Gbit \
                    link_state=enable queues=3 interrupts=2 online=on";
        let described = parse(&words(text)).unwrap().describe();
        let written: Vec<_> = described.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(written.join(" "), text);
        assert_eq!(parse(&words("max_tx_rate=0")).unwrap().max_tx_rate, Some(BitRate::from_megabits(0)));
    }

    #[test]
    fn a_wrong_word_is_named_with_what_would_be_right() {
        for (word, says) in [
            ("vlan", "KEY=VALUE"),
            ("vlan=4095", "4094"),
            ("mtu=9000", "there are mac, vlan"),
            ("mac=01:00:5e:00:00:01", "multicast"),
            ("trust=maybe", "on or off"),
            ("max_tx_rate=fast", "500Mbit"),
            ("link_state=up", "enable"),
            ("queues=-1", "number"),
            ("vlan=1 vlan=2", "twice"),
        ] {
            let error = parse(&words(word)).unwrap_err();
            assert!(error.contains(says) && error.contains(word.split(' ').next_back().unwrap()), "{error}");
        }
    }
}
