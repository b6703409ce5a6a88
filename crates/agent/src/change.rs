//! Settings as they are written on the command line: `mac=52:54:00:aa:00:01 vlan=5`.

use ioward_model::{Setting, VfSettings};

/// Settings from words of the form `key=value`.
///
/// # Errors
/// The invalid word, why it is invalid, and what is valid.
pub fn parse(words: &[String]) -> Result<VfSettings, String> {
    let mut change = VfSettings::default();
    for word in words {
        let (key, value) =
            word.split_once('=').ok_or_else(|| format!("'{word}': write KEY=VALUE, as vlan=5"))?;
        add(&mut change, key, value).map_err(|why| format!("{word}: {why}"))?;
    }
    Ok(change)
}

fn add(change: &mut VfSettings, key: &str, value: &str) -> Result<(), String> {
    let setting: Setting = key.parse()?;
    if change.get(setting).is_some() {
        return Err("the same setting comes twice".to_owned());
    }
    change.set(setting, setting.kind().parse(value)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use ioward_model::BitRate;

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
    fn a_wrong_word_is_named_with_the_right_form() {
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
