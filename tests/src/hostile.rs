//! Guests that attack their channel, and daemons that die: other partitions are unaffected.

use ioward_channel::{AgentMessage, Hello, VERSION as VERSION_1, stream};
use ioward_model::VfOp;
use ioward_tests::{
    daemon::{Daemon, SOON, VERSION, partition, vf},
    harness::Outcome,
    level1::sh,
};

const PORT: &str = "/dev/vport0p1";

pub fn garbage_half_frames_and_floods_harm_no_other_partition() -> Outcome {
    let daemon = Daemon::start()?;
    let nic = |mac: &str| vf("net0", "network", &format!("mac = \"{mac}\"\nguest_may = [\"mac\"]"));
    let spec = [
        VERSION,
        &partition("good"),
        &nic("52:54:00:aa:00:01"),
        &partition("evil"),
        &nic("52:54:00:aa:00:02"),
    ]
    .concat();
    daemon.apply(&spec)?;
    let mut good = daemon.guest("good")?;
    let mut evil = daemon.guest("evil")?;
    good.run("ioward-agent vf list", SOON)?;

    let attacks = [
        // Noise, with and without frame ends in it.
        format!("dd if=/dev/urandom of={PORT} bs=1k count=200 2>/dev/null"),
        format!("tr '\\0' x </dev/zero | dd of={PORT} bs=4k count=40 2>/dev/null"),
        // Half a frame, and then silence.
        format!("printf '\\0\\13IOWA\\1' >{PORT}"),
        // Empty and tiny frames, as fast as possible.
        format!("yes | tr '\\n' '\\0' | dd of={PORT} bs=1k count=10 2>/dev/null"),
    ];
    for attack in attacks {
        evil.run(&format!("({attack}) & sleep 3; kill $! 2>/dev/null; true"), SOON)?;
        let list = good.run("ioward-agent vf list", SOON)?;
        assert!(list.contains("52:54:00:aa:00:01"), "after {attack}: {list}");
        assert!(!list.contains("52:54:00:aa:00:02"), "{list}");
    }
    // After noise and half a frame, an agent in the same partition is still served, once everything before its
    // request has been read: five thousand frames, at the rate allowed to a partition.
    evil.run("n=0; until ioward-agent vf list; do n=$((n+1)); [ $n -lt 20 ] || exit 1; done", 3 * SOON)?;

    // Sixteen thousand well-formed requests, as fast as possible; their answers are first read, then not.
    let (hello, request) = flood();
    evil.run(&format!("printf '{hello}' >/tmp/hello; printf '{request}' >/tmp/requests"), SOON)?;
    evil.run(
        "for i in $(seq 14); do cat /tmp/requests /tmp/requests >/tmp/twice; mv /tmp/twice /tmp/requests; done",
        SOON,
    )?;
    for answers in ["cat <&3 >/dev/null & ", ""] {
        evil.run(&format!("(exec 3<>{PORT}; {answers}cat /tmp/hello /tmp/requests >&3) & flood=$!"), SOON)?;
        for last in 0x11..0x16 {
            let mac = format!("52:54:00:aa:00:{last:02x}");
            good.run(&format!("ioward-agent vf set net0 mac={mac}"), SOON)?;
            assert!(sh("ip link show eth0")?.contains(&mac), "good is not served beside a flood");
        }
        evil.run("kill $flood; killall cat; true", SOON)?;
    }

    // Its unread data goes with its machine; then it is served as usual.
    daemon.done(&["stop", "--yes", "evil", "--force"])?;
    daemon.done(&["start", "evil"])?;
    daemon.guest("evil")?.run("ioward-agent vf list", SOON)?;
    assert!(daemon.done(&["events"])?.contains("misused"));
    Ok(())
}

pub fn a_crashed_daemon_finds_its_machines_and_channels_again() -> Outcome {
    let mut daemon = Daemon::start()?;
    let spec = [
        VERSION,
        &partition("web"),
        &vf("net0", "network", "mac = \"52:54:00:aa:00:01\"\nguest_may = [\"mac\"]"),
    ]
    .concat();
    daemon.apply(&spec)?;
    let mut web = daemon.guest("web")?;
    web.run("ioward-agent vf list", SOON)?;
    let uptime = |web: &mut ioward_tests::guest::Guest| -> Result<f64, Box<dyn std::error::Error>> {
        Ok(web.run("cut -d' ' -f1 /proc/uptime", SOON)?.parse()?)
    };
    let before = uptime(&mut web)?;
    daemon.crash_and_restart()?;
    assert!(uptime(&mut web)? > before, "the guest went on");
    web.run("ioward-agent vf set net0 mac=52:54:00:aa:00:99", SOON)?;
    assert!(sh("ip link show eth0")?.contains("52:54:00:aa:00:99"));
    assert!(daemon.apply(&spec)?.contains("nothing to do"));
    // The death of a machine is noticed meanwhile.
    sh("pkill -9 -f qemu-system")?;
    daemon.events_until("its machine has ended", |events| events.contains("web ended"))?;
    daemon.done(&["start", "web"])?;
    daemon.guest("web")?.run("ioward-agent vf list", SOON)?;
    Ok(())
}

/// A hello and a request, encoded for the port, as words for `printf`.
fn flood() -> (String, String) {
    let words = |message: AgentMessage| {
        let mut bytes = stream::START.to_vec();
        stream::encode(&message.to_frame(), &mut bytes);
        bytes.iter().map(|byte| format!("\\{byte:03o}")).collect::<String>()
    };
    let hello = Hello { min_version: VERSION_1, max_version: VERSION_1, agent: "flood".into(), nonce: 1 };
    (words(AgentMessage::Hello(hello)), words(AgentMessage::Request { id: 7, op: VfOp::List }))
}
