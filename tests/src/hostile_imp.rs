//! `lab-hostile`: a daemon with a compromised management partition. Its hypervisor side is the real one; the
//! process that this starts as its management partition confines itself like the real one, and then sends and tries
//! anything.
//!
//! `lab-hostile SOCKET RUNTIME STATE WEB_PID WEB_VF` prints a line for each attempt: `attempt: outcome`.

// A test tool, which attacks with more than safe code offers.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs)]

use std::{
    io::{self, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    process::ExitCode,
};

use ioward_imp::{IMP_COMMAND, ServeConfig};
use ioward_model::{Boot, Spec, VfId};
use ioward_pci::Bdf;
use ioward_privsep::{Call, Hello, ToHost, ToImp, confine, receive_hello};

const PF: &str = "0000:01:00.0";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|command| command == IMP_COMMAND) {
        attack();
        return ExitCode::SUCCESS;
    }
    let [_, socket, runtime_dir, state_dir, pid, vf] = &arguments[..] else { panic!("{arguments:?}") };
    // The attacker's knowledge comes in the environment: the real hypervisor side starts the other process.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ServeConfig {
        socket: socket.into(),
        runtime_dir: runtime_dir.into(),
        state_dir: state_dir.into(),
        emulator: None,
    };
    assert!(pid == &known("HOSTILE_PID") && vf == &known("HOSTILE_VF"));
    let ended = runtime.block_on(ioward_imp::serve(config));
    println!("the hypervisor side: {ended:?}");
    println!("all tried");
    ExitCode::SUCCESS
}

fn known(name: &str) -> String {
    std::env::var(name).unwrap()
}

/// A link that can send anything.
struct Link {
    stream: UnixStream,
    last: u64,
}

impl Link {
    fn send(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).unwrap();
        self.stream.write_all(&length.to_le_bytes()).unwrap();
        self.stream.write_all(bytes).unwrap();
    }

    /// A message, and the bytes after it in its frame.
    fn receive(&mut self) -> io::Result<(ToImp, String)> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_le_bytes(length) as usize];
        self.stream.read_exact(&mut frame)?;
        let mut messages = serde_json::Deserializer::from_slice(&frame).into_iter();
        let message = messages.next().ok_or(io::ErrorKind::InvalidData)??;
        Ok((message, String::from_utf8_lossy(&frame[messages.byte_offset()..]).into_owned()))
    }

    /// Sends a call and prints the outcome.
    fn tries(&mut self, what: &str, call: Call) {
        self.last += 1;
        self.send(&serde_json::to_vec(&ToHost::Call { id: self.last, call }).unwrap());
        loop {
            if let (ToImp::Answer { id, result, .. }, value) = self.receive().unwrap()
                && id == self.last
            {
                let ended = match result {
                    Ok(()) => format!("GRANTED {value}"),
                    Err(failure) => format!("refused {failure:?}"),
                };
                println!("{what}: {}", ended.replace('\n', " "));
                return;
            }
        }
    }
}

fn attack() {
    let (pid, web_vf): (i32, Bdf) =
        (known("HOSTILE_PID").parse().unwrap(), known("HOSTILE_VF").parse().unwrap());
    let socket = io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut stream = UnixStream::from(socket);
    let (hello, _api) = receive_hello(&mut stream).unwrap();
    let Hello { confinement, .. } = &hello;
    confine(confinement).unwrap();
    in_its_own_process(pid);

    let mut link = Link { stream, last: 0 };
    let pf: Bdf = PF.parse().unwrap();
    let web_id = VfId { pf, index: 0 };
    let evil = |vf: &str| format!("evil/{vf}").parse().unwrap();
    link.tries("the VF of another partition", Call::AttachVf { owner: evil("net9"), function: web_vf });
    link.tries("a PF", Call::AttachVf { owner: evil("net9"), function: pf });
    link.tries(
        "a function that is none",
        Call::AttachVf { owner: evil("net9"), function: "0000:7f:1f.7".parse().unwrap() },
    );
    link.tries("the VF of another for the host", Call::Bind { vf: web_id, driver: Some("igbvf".into()) });
    link.tries("the VF of another for nobody", Call::Bind { vf: web_id, driver: None });
    link.tries(
        "a driver that is a path",
        Call::Bind { vf: VfId { pf, index: 1 }, driver: Some("../../../../tmp/x".into()) },
    );
    link.tries(
        "a PF as a VF",
        Call::Bind { vf: VfId { pf: web_vf, index: 0 }, driver: Some("vfio-pci".into()) },
    );
    for disk in [
        "/dev/mem",
        "/etc/shadow",
        "/dev/vda",
        &format!("/proc/{pid}/mem"),
        "/run/ioward-test/state/state.redb",
    ] {
        let boot = Boot { disk: Some(disk.into()), ..Boot::default() };
        define_and_start(&mut link, &format!("a machine whose disk is {disk}"), boot);
    }
    let kernel = Boot { kernel: Some("/etc/shadow".into()), ..Boot::default() };
    define_and_start(&mut link, "a machine whose kernel is /etc/shadow", kernel);
    // A machine's VF is its own, even when requested twice.
    link.tries("the VF of another, again", Call::AttachVf { owner: evil("net9"), function: web_vf });

    // A name that is a path is invalid: the hypervisor side reads no more, and ends the link.
    link.send(br#"{"Call":{"id":99,"call":{"Undefine":{"partition":"../web"}}}}"#);
    let _ = link.receive();
}

fn define_and_start(link: &mut Link, what: &str, boot: Boot) {
    let text =
        "version = 1\n[[partition]]\nname = \"mole\"\nmemory = \"64MiB\"\nboot = { kernel = \"/x\" }\n";
    let mut spec = Spec::parse(text.as_bytes()).unwrap().partitions.remove(0);
    spec.machine_mut().unwrap().boot = boot;
    let partition = spec.name.clone();
    link.last += 1;
    let define = Call::Define { spec };
    link.send(&serde_json::to_vec(&ToHost::Call { id: link.last, call: define }).unwrap());
    while !matches!(link.receive().unwrap().0, ToImp::Answer { id, .. } if id == link.last) {}
    link.tries(what, Call::Start { partition });
}

/// Attempts that need no other process.
fn in_its_own_process(pid: i32) {
    for path in [
        "/dev/kvm",
        "/dev/mem",
        "/dev/vfio/vfio",
        "/sys/bus/pci",
        "/proc/self/status",
        "/etc/passwd",
        "/run/ioward-test/run",
    ] {
        println!("open {path}: {}", ended(std::fs::File::open(path).map(drop)));
    }
    let pid = i64::from(pid);
    let calls = [
        ("ptrace another's machine", libc::SYS_ptrace, [16, pid, 0]),
        ("read another's memory", libc::SYS_process_vm_readv, [pid, 0, 0]),
        ("end another's machine", libc::SYS_kill, [pid, 9, 0]),
        ("a handle of another's machine", libc::SYS_pidfd_open, [pid, 0, 0]),
        ("a socket, to QMP or anywhere", libc::SYS_socket, [1, 1, 0]),
        ("root again", libc::SYS_setuid, [0, 0, 0]),
        ("a program", libc::SYS_execve, [0, 0, 0]),
        ("a process", libc::SYS_fork, [0, 0, 0]),
        ("a namespace", libc::SYS_unshare, [0x1000_0000, 0, 0]),
        ("a mount", libc::SYS_mount, [0, 0, 0]),
        ("a file by handle", libc::SYS_open_by_handle_at, [0, 0, 0]),
        ("a program for the kernel", libc::SYS_bpf, [0, 0, 0]),
        ("an io_uring", libc::SYS_io_uring_setup, [1, 0, 0]),
        ("a kernel module", libc::SYS_init_module, [0, 0, 0]),
    ];
    for (what, number, [one, two, three]) in calls {
        #[expect(unsafe_code, reason = "safe code has no name for most of these, which is the point")]
        // SAFETY: none of these calls writes to memory of this process: the pointers among their arguments are
        // null.
        let result = unsafe { libc::syscall(number, one, two, three) };
        println!("{what}: {}", ended(if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }));
    }
}

fn ended(result: io::Result<()>) -> String {
    result.map_or_else(|error| format!("refused {error}"), |()| "GRANTED".to_owned())
}
