//! Writes what fuzzing begins with into `fuzz/corpus/`, where chance alone does not get: frames with every kind of message,
//! because no stream of random bytes has the right checksum and few have the right CBOR; frames of the link between the two sides of
//! the daemon; what a real libvirt said; and small recorded hosts.

use std::{error::Error, fs, path::Path};

use ioward_channel::{
    AgentMessage, ChannelError, ErrorCode, Frame, Hello, ImpMessage, Notice, Welcome, stream,
};
use ioward_hypervisor::{HypervisorEvent, StopMode};
use ioward_model::{
    BitRate, Class, Inventory, LinkState, Name, OpError, OpErrorKind, OpOutcome, Owner, Spec, VfId, VfOp,
    VfSettings, VfStatistics, VfView, Vlan,
};
use ioward_pci::Bdf;
use ioward_privsep::{Call, Frame as LinkFrame, Life, MAX_FROM_HOST, MAX_FROM_IMP, ToHost, ToImp};
use serde_json::Value;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = |target: &str| -> Outcome<_> {
        let folder = here.join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    };
    let frames = frames()?;
    let mut all = Vec::new();
    for (number, frame) in frames.iter().enumerate() {
        // As the payload of a frame of a kind, and as a whole stream.
        let mut payload = vec![frame.kind()];
        payload.extend_from_slice(frame.payload());
        fs::write(folder("frames")?.join(format!("seed-{number}-payload")), payload)?;
        let mut bytes = Vec::new();
        stream::encode(frame, &mut bytes);
        fs::write(folder("frames")?.join(format!("seed-{number}-stream")), &bytes)?;
        all.extend(bytes);
    }
    fs::write(folder("frames")?.join("seed-session"), all)?;

    for (number, frame) in link_frames()?.iter().enumerate() {
        // Where the stream is cut, then the stream.
        let bytes = [&[7], frame.as_bytes()].concat();
        fs::write(folder("link")?.join(format!("seed-{number}")), bytes)?;
    }

    for (number, message) in libvirt_messages(here)?.iter().enumerate() {
        // Where the stream is cut, then the stream; and the definition in it, if it is one.
        let bytes = [&[9], &message[..]].concat();
        fs::write(folder("libvirt")?.join(format!("seed-{number}")), bytes)?;
        if let Some(text) = message.get(32..).filter(|rest| rest.starts_with(b"<domain")) {
            let padding = text.iter().rev().take_while(|byte| **byte == 0).count();
            fs::write(folder("libvirt")?.join(format!("seed-{number}-xml")), &text[..text.len() - padding])?;
        }
    }

    for recording in ["lab-pristine", "lab-vfs"] {
        let file = here.join("../tests/data").join(format!("{recording}.snapshot.json"));
        let whole: Value = serde_json::from_slice(&fs::read(file)?)?;
        for (name, functions) in
            [("nic", &["0000:01:00.0", "0000:01:10.0"][..]), ("nvme", &["0000:02:00.0", "0000:02:00.1"])]
        {
            let small = serde_json::to_vec(&with_only(whole.clone(), functions)?)?;
            fs::write(folder("snapshot")?.join(format!("seed-{recording}-{name}")), small)?;
        }
    }
    Ok(())
}

/// A message of every kind, with every operation and every result.
fn frames() -> Outcome<Vec<Frame>> {
    let mac = Some("52:54:00:aa:00:01".parse()?);
    let nic = VfSettings {
        mac,
        vlan: Vlan::new(105),
        trust: Some(true),
        spoofchk: Some(false),
        min_tx_rate: Some(BitRate::from_megabits(100)),
        max_tx_rate: Some(BitRate::from_megabits(500)),
        link_state: Some(LinkState::Enable),
        ..VfSettings::default()
    };
    let nvme =
        VfSettings { queues: Some(4), interrupts: Some(3), online: Some(true), ..VfSettings::default() };
    let view = |name: &str, class, settings: &VfSettings| -> Outcome<_> {
        let may = vec!["mac".to_owned(), "vlan 100-110".to_owned()];
        let host_address = "0000:01:10.0".parse()?;
        Ok(VfView {
            name: name.parse()?,
            class,
            host_address,
            settings: settings.clone(),
            may,
            failover: None,
            fault: None,
        })
    };
    let (net0, disk0) = (view("net0", Class::Network, &nic)?, view("disk0", Class::Nvme, &nvme)?);
    let vf = net0.name.clone();

    let hello = Hello { min_version: 1, max_version: 1, agent: "ioward-agent 0.1.0".to_owned(), nonce: 42 };
    let operations = [
        VfOp::List,
        VfOp::Get { vf: vf.clone() },
        VfOp::Set { vf: vf.clone(), change: nic },
        VfOp::Set { vf: disk0.name.clone(), change: nvme },
        VfOp::Reset { vf: vf.clone() },
        VfOp::Stats { vf: vf.clone() },
    ];
    let requests = operations.map(|op| AgentMessage::Request { id: 7, op });
    let from_agent =
        [AgentMessage::Hello(hello), AgentMessage::Subscribe { id: 6 }].into_iter().chain(requests);

    let statistics = VfStatistics { rx_packets: 1, tx_packets: 2, rx_bytes: 3, ..VfStatistics::default() };
    let results = [
        Err(OpError::new(OpErrorKind::Denied, "vlan is not in guest_may")),
        Ok(OpOutcome::Done),
        Ok(OpOutcome::Vf(net0.clone())),
        Ok(OpOutcome::Vfs(vec![net0.clone(), disk0.clone()])),
        Ok(OpOutcome::Stats(statistics)),
    ];
    let responses = results.map(|result| ImpMessage::Response { id: 7, more: false, result });
    let error = ChannelError {
        id: 7,
        code: ErrorCode::BadMessage,
        message: "this is no message".to_owned(),
        min_version: 1,
        max_version: 1,
        nonce: Some(42),
    };
    let from_imp = [
        ImpMessage::Welcome(Welcome { version: 1, epoch: 7, nonce: 42, partition: "web".parse()? }),
        ImpMessage::Notice(Notice::Added(net0)),
        ImpMessage::Notice(Notice::Changed(disk0)),
        ImpMessage::Notice(Notice::Removed(vf)),
        ImpMessage::Error(error),
        ImpMessage::Reset { epoch: 8 },
    ];
    let from_imp = from_imp.into_iter().chain(responses).flat_map(|message| message.to_frames());
    Ok(from_agent.map(|message| message.to_frame()).chain(from_imp).collect())
}

/// Messages of both sides, with operations and results of every kind of argument.
fn link_frames() -> Outcome<Vec<LinkFrame>> {
    let text = "version = 1\n[[partition]]\nname = \"web\"\nboot = { kernel = \"/k\" }\n";
    let spec = Spec::parse(text.as_bytes())?.partitions.remove(0);
    let (partition, owner, pf): (Name, Owner, Bdf) =
        ("web".parse()?, "web/net0".parse()?, "0000:01:00.0".parse()?);
    let vf = VfId { pf, index: 0 };
    let change = VfSettings { trust: Some(true), queues: Some(4), ..VfSettings::default() };
    let calls = [
        Call::Identify {},
        Call::SetVfCount { pf, count: 4 },
        Call::Bind { vf, driver: Some("vfio-pci".to_owned()) },
        Call::Configure { vf, change },
        Call::CheckDefinition { spec: spec.clone() },
        Call::Define { spec },
        Call::Stop { partition: partition.clone(), mode: StopMode::Graceful },
        Call::AttachVf { owner: owner.clone(), function: pf },
        Call::DetachVf { owner, force: true },
        Call::ConnectChannel { partition: partition.clone() },
    ];
    let calls = (1..).zip(calls).map(|(id, call)| ToHost::Call { id, call });
    let others = [
        ToHost::GiveUp { id: 1 },
        ToHost::Life(Life::Ready { partitions: 1 }),
        ToHost::Failed("the state is damaged".to_owned()),
    ];
    let mut frames = Vec::new();
    for message in calls.chain(others) {
        frames.push(LinkFrame::new(&message, MAX_FROM_IMP)?);
    }
    let why = "the guest turned itself off".to_owned();
    for message in [ToImp::Changed, ToImp::Stop, ToImp::Happened(HypervisorEvent::Ended { partition, why })] {
        frames.push(LinkFrame::new(&message, MAX_FROM_HOST)?);
    }
    let answer = ToImp::Answer { id: 1, result: Ok(()), with_fd: false };
    frames.push(LinkFrame::with_value(&answer, &Inventory::default(), MAX_FROM_HOST)?);
    Ok(frames)
}

/// What libvirt said, message by message.
fn libvirt_messages(here: &Path) -> Outcome<Vec<Vec<u8>>> {
    let file = here.join("../crates/hypervisor/tests/data/libvirt-11.3.messages");
    let text = fs::read_to_string(file)?;
    let mut messages = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("libvirt ")) {
        let bytes =
            line.as_bytes().chunks(2).map(|digits| Ok(u8::from_str_radix(str::from_utf8(digits)?, 16)?));
        messages.push(bytes.collect::<Outcome<Vec<u8>>>()?);
    }
    Ok(messages)
}

/// A recording with nothing in it but these functions, and of their folders only what leads somewhere.
fn with_only(mut recording: Value, functions: &[&str]) -> Outcome<Value> {
    const DEVICES: &str = "sys/bus/pci/devices";
    let function_of = |path: &str| path.strip_prefix(DEVICES)?.split('/').nth(1).map(str::to_owned);
    let parts = recording["host"].as_object_mut().ok_or("a recording has a host")?;
    for part in parts.values_mut().filter_map(Value::as_object_mut) {
        part.retain(|path, _| function_of(path).is_none_or(|function| functions.contains(&&*function)));
    }
    let folders = parts.get_mut("folders").and_then(Value::as_object_mut).ok_or("a recording has folders")?;
    for (path, names) in folders {
        let names = names.as_array_mut().ok_or("a folder is a list")?;
        let leads = |name: &str| match function_of(path) {
            None if path == DEVICES => functions.contains(&name),
            Some(function) if path.ends_with(&function) => {
                let kept =
                    ["driver", "net", "nvme", "physfn", "sriov_numvfs", "sriov_totalvfs", "iommu_group"];
                kept.contains(&name) || name.starts_with("virtfn")
            }
            _ => true,
        };
        names.retain(|name| name.as_str().is_some_and(leads));
    }
    if let Some(drivers) = recording["drivers"].as_object_mut() {
        drivers.retain(|pf, _| functions.contains(&&**pf));
    }
    Ok(recording)
}
