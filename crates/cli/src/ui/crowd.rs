//! How many connections may be there that have shown no certificate yet: so many of one network, so many of all. Whoever opens a
//! thousand has their own share of them and leaves the others theirs.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// The most at once, of all.
const MAX: usize = 200;
/// The most at once of one IPv4 address, or of the 2^64 IPv6 addresses that one has.
const MAX_OF_ONE: usize = 20;

/// Those that are there.
#[derive(Default)]
pub struct Crowd(Mutex<BTreeMap<IpAddr, usize>>);

/// The place of one of them, until dropped.
pub struct Place {
    crowd: Arc<Crowd>,
    network: IpAddr,
}

impl Crowd {
    /// A place for one more, as far as there is room.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let network = network(address);
        let mut there = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own) = (there.values().sum::<usize>(), there.get(&network).copied().unwrap_or(0));
        if all >= MAX || own >= MAX_OF_ONE {
            return None;
        }
        there.insert(network, own + 1);
        Some(Place { crowd: Arc::clone(self), network })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut there = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        match there.get_mut(&self.network) {
            Some(count @ 2..) => *count -= 1,
            _ => drop(there.remove(&self.network)),
        }
    }
}

/// What stands for all addresses of one network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(crowd: &Arc<Crowd>, address: &str) -> Option<Place> {
        crowd.enter(address.parse().unwrap())
    }

    #[test]
    fn one_network_has_its_share_and_no_more() {
        let crowd = Arc::default();
        for (one, same, other) in [
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::2:0:0:1", "2001:db8:0:1::1"),
        ] {
            let mut places: Vec<_> = (0..MAX_OF_ONE).map(|_| enter(&crowd, one).unwrap()).collect();
            assert!(enter(&crowd, one).is_none() && enter(&crowd, same).is_none());
            assert!(enter(&crowd, other).is_some());
            drop(places.pop());
            assert!(enter(&crowd, same).is_some(), "one has left");
        }
        assert!(crowd.0.lock().unwrap().is_empty(), "nothing is kept of those that have left");
    }

    #[test]
    fn all_networks_together_have_a_bound() {
        let crowd = Arc::default();
        let places: Vec<_> = (0..=255).map(|last| enter(&crowd, &format!("192.0.2.{last}"))).collect();
        assert_eq!(places.iter().flatten().count(), MAX);
    }
}
