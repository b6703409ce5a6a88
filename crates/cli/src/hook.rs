//! `ioward libvirt-hook`: what libvirt runs before it starts a domain (libvirt.org, "Hooks for specific system management"). The VFs of
//! ioward's in the domain are ready when it has ended well; otherwise it says why not, and libvirt does not start the domain.
//!
//! ```text
//!   another moment of a domain's life ──────────────────────────────> 0
//!   prepare begin, no PCI function of the host in the definition ───> 0
//!   one with an alias of ioward's ──> the daemon is asked ──────────> 0, or the reason
//!   others only ────────────────────> the daemon is asked, if it is there: a VF may have been its domain's before ioward was there
//! ```
//! libvirt holds the domain and waits without a bound of its own: nothing here asks libvirt, and everything has a bound.

use std::{
    io::{self, Read},
    path::Path,
    time::Duration,
};

use ioward_api::{DomainFunction, ErrorKind, PrepareRequest, Prepared};
use ioward_hypervisor::libvirt::{Uuid, xml};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    args::HookArgs,
    client::{Client, ClientError},
    error::{CliError, plain},
};

/// The longest definition that is read to its end. libvirt's own end at a quarter of that.
const MAX_XML: u64 = 16 << 20;
/// What all aliases of VFs of ioward's begin with.
const ALIAS: &[u8] = b"ua-ioward-";
/// A host has just booted, and its daemon may be starting yet, this long after the boot.
const JUST_BOOTED: Duration = Duration::from_secs(600);
/// How long a daemon that takes the place of another may take, on a host that has been up for long.
const RESTARTING: Duration = Duration::from_secs(5);
/// Seconds that the daemon may take for its answer, whatever there is: the client listens no longer than two minutes.
const LONGEST_ANSWER: u64 = 100;
/// Between two looks for a daemon that is starting.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A domain that is about to start.
#[derive(Debug, PartialEq)]
struct Domain {
    uuid: Uuid,
    request: PrepareRequest,
    /// Its VFs that ioward gave to it.
    ours: Vec<String>,
}

/// Does what libvirt runs this for.
///
/// # Errors
/// When the domain must not start, with what to do.
pub async fn hook(client: &Client, args: HookArgs) -> Result<(), CliError> {
    let until = Instant::now() + Duration::from_secs(args.within);
    if args.operation != "prepare" || args.sub_operation != "begin" {
        return Ok(());
    }
    let reading = tokio::task::spawn_blocking(|| definition(io::stdin()));
    let definition = match timeout_at(until, reading).await {
        Ok(Ok(read)) => read.map_err(|error| {
            CliError::Hook(format!("cannot read the definition of the domain that libvirt starts: {error}"))
        })?,
        Ok(Err(_)) | Err(_) => {
            let error = "libvirt has not given the definition of the domain that it starts; start it again";
            return Err(CliError::Hook(error.to_owned()));
        }
    };
    let Some(domain) = needed(&definition).map_err(CliError::Hook)? else { return Ok(()) };
    let is_there = |function: &DomainFunction| {
        Path::new("/sys/bus/pci/devices").join(function.address.to_string()).exists()
    };
    // A domain whose devices are not there can't start anyway, and they may be VFs that the daemon is about to make.
    let waits = !domain.ours.is_empty() || !domain.request.functions.iter().all(is_there);
    let patience =
        if waits { patience(since_boot(), Duration::from_secs(args.within)) } else { Duration::ZERO };
    let asked = timeout_at(until, ask(client, &domain, patience, until)).await;
    let error = match asked {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(CliError::Api(error))) if error.kind == ErrorKind::Refused => return Err(error.into()),
        Ok(Err(error)) => error,
        Err(_) => CliError::Hook(format!("ioward has not answered within {} s; see its log", args.within)),
    };
    if domain.ours.is_empty() { Ok(()) } else { Err(CliError::Hook(domain.stranded(&error))) }
}

/// Asks the daemon, which may be starting yet, to have the domain's VFs ready.
async fn ask(client: &Client, domain: &Domain, patience: Duration, until: Instant) -> Result<(), CliError> {
    let impatient = Instant::now() + patience;
    let route = format!("/v1/domains/{}/prepare", domain.uuid);
    loop {
        // It is to answer before nobody listens any more.
        let left = until.saturating_duration_since(Instant::now()).as_secs().saturating_sub(2);
        let left = left.min(LONGEST_ANSWER);
        let request = PrepareRequest { wait_seconds: left, ..domain.request.clone() };
        match client.post::<Prepared>(&route, &request).await {
            Ok(_) => return Ok(()),
            Err(CliError::Client(error)) if error.may_pass() && Instant::now() < impatient => {
                sleep(LOOK_AGAIN).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// How long to wait for a daemon that is not there, of the time there is.
fn patience(since_boot: Option<Duration>, within: Duration) -> Duration {
    let is_booting = since_boot.is_some_and(|since| since < JUST_BOOTED);
    let at_most = within * 2 / 3;
    if is_booting { at_most } else { RESTARTING.min(at_most) }
}

/// `/proc/uptime`.
fn since_boot() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    Duration::try_from_secs_f64(text.split(' ').next()?.parse().ok()?).ok()
}

/// The definition, as far as it is read.
fn definition(from: impl Read) -> io::Result<Vec<u8>> {
    let mut definition = Vec::new();
    from.take(MAX_XML).read_to_end(&mut definition)?;
    Ok(definition)
}

/// The question for the daemon; `None` where there is none. Of a definition that can't be understood, the domain starts unless it may have a
/// VF of ioward's.
fn needed(definition: &[u8]) -> Result<Option<Domain>, String> {
    let may_be_ours = || definition.windows(ALIAS.len()).any(|window| window == ALIAS);
    let read = str::from_utf8(definition).map_err(|error| error.to_string());
    let facts = match read.and_then(|text| xml::read(text).map_err(|error| error.to_string())) {
        Ok(facts) => facts,
        Err(error) if may_be_ours() => {
            return Err(format!(
                "this domain may have VFs of ioward's, and it can't be told which: {error}; look at it: virsh edit"
            ));
        }
        Err(_) => return Ok(None),
    };
    let function = |device: &xml::HostDevice| {
        device.function.map(|address| DomainFunction { address, vf: device.vf.clone() })
    };
    let functions: Vec<_> = facts.host_devices.iter().filter_map(function).collect();
    let vfs = functions.iter().filter_map(|function| function.vf.as_ref());
    let ours: Vec<_> = vfs.map(ToString::to_string).collect();
    // libvirt gives one to every domain.
    let Some(uuid) = facts.uuid.filter(|_| !functions.is_empty()) else { return Ok(None) };
    let request = PrepareRequest { name: facts.name.to_string(), functions, wait_seconds: 0 };
    Ok(Some(Domain { uuid, request, ours }))
}

impl Domain {
    /// What to do about a domain whose VFs nobody looks after.
    fn stranded(&self, error: &CliError) -> String {
        let (name, vfs) = (&self.request.name, self.ours.join(", "));
        match error {
            CliError::Client(error) if error.may_pass() => {
                let why = match error {
                    ClientError::Unreachable { daemon, source } => {
                        format!("{daemon}: {}", plain(source))
                    }
                    error => error.to_string(),
                };
                format!(
                    "domain {name} has VFs of ioward's ({vfs}), and ioward is not running: systemctl start ioward, then \
                     virsh start {name}; or take them out of the domain: virsh edit {name} ({why})"
                )
            }
            error => format!(
                "domain {name} has VFs of ioward's ({vfs}), and whether they are ready is not known: {error}; or take them \
                 out of the domain: virsh edit {name}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const UUID: &str = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0";

    fn domain(devices: &str) -> Vec<u8> {
        format!(
            "<domain type='kvm'><name>web</name><uuid>{UUID}</uuid><memory>1</memory><devices>{devices}</devices></domain>"
        )
        .into_bytes()
    }

    fn hostdev(alias: &str) -> String {
        format!(
            "<hostdev mode='subsystem' type='pci' managed='no'><source><address domain='0x0000' bus='0x01' slot='0x10' \
             function='0x2'/></source>{alias}</hostdev>"
        )
    }

    #[test]
    fn only_a_domain_with_a_pci_function_of_the_hosts_is_asked_about() {
        assert_eq!(needed(&domain("")), Ok(None));
        let channel = xml::channel("/run/ioward/channels/web.sock").unwrap();
        assert_eq!(needed(&domain(&channel)), Ok(None), "a channel alone needs no VF");
        let asked = needed(&domain(&hostdev(""))).unwrap().unwrap();
        assert_eq!((asked.uuid.to_string().as_str(), asked.request.name.as_str()), (UUID, "web"));
        let address = "0000:01:10.2".parse().unwrap();
        assert_eq!(asked.request.functions, [DomainFunction { address, vf: None }]);
        assert!(asked.ours.is_empty());
        let asked = needed(&domain(&hostdev("<alias name='ua-ioward-net0'/>"))).unwrap().unwrap();
        assert_eq!(asked.ours, ["net0"]);
    }

    #[test]
    fn a_definition_that_makes_no_sense_stops_nobody_elses_domain() {
        let started = Instant::now();
        let laughs =
            "<!DOCTYPE domain [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;'>]><domain><name>&b;</name></domain>";
        let long = String::from_utf8(domain(&hostdev("").repeat(80_000))).unwrap();
        assert!(long.len() > 10 << 20);
        let twice = hostdev("<alias name='ua-ioward-net0'/>").repeat(2);
        for foreign in [b"".as_slice(), b"\xff<domain/>", b"no XML", laughs.as_bytes(), long.as_bytes()] {
            assert_eq!(needed(foreign), Ok(None));
        }
        let ours = "<!-- ua-ioward-net0 -->";
        for unclear in [laughs.to_owned() + ours, long + ours, String::from_utf8(domain(&twice)).unwrap()] {
            let refused = needed(unclear.as_bytes()).unwrap_err();
            assert!(refused.contains("virsh edit"), "{refused}");
        }
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn no_more_is_read_than_a_definition_can_have() {
        assert_eq!(definition(io::repeat(b'<')).unwrap().len() as u64, MAX_XML);
    }

    #[test]
    fn a_daemon_that_is_not_there_is_waited_for_after_a_boot() {
        let seconds = Duration::from_secs;
        assert_eq!(patience(Some(seconds(20)), seconds(60)), seconds(40));
        assert_eq!(patience(Some(seconds(86_400)), seconds(60)), seconds(5));
        assert_eq!(patience(None, seconds(3)), seconds(2));
    }
}
