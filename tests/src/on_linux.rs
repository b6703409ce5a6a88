//! The conformance suite on the Linux kernel; the simulated machine runs it in `tests/conformance_on_sim.rs`.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use ioward_fabric::{linux::LinuxFabric, sim::Severity};
use ioward_pci::Bdf;
use ioward_tests::{
    conformance::{Body, Machine, SUITE, Shell},
    harness::Test,
    level1::{NIC0, NVME, driver, inject, sh, virtual_functions, wait_until},
};
use rustix::io::Errno;

/// Far above the kernel's need for anything here, in software emulation.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time that a function may take after a reset (PCIe 6.0 §6.6.2).
const RESET: Duration = Duration::from_millis(100);

/// The suite as lab tests, `conformance_on_linux::…`.
pub fn conformance() -> Vec<Test> {
    let test = |&(name, body): &Body| Test {
        name: format!("conformance_on_linux::{name}"),
        run: Box::new(move || {
            body(&Machine {
                fabric: Box::new(LinuxFabric::new()),
                shell: Box::new(Sysfs::new()),
                nic: NIC0.parse()?,
                nvme: NVME.parse()?,
                runtime: tokio::runtime::Runtime::new()?,
            });
            Ok(())
        }),
    };
    SUITE.iter().map(test).collect()
}

/// Level 1's sysfs, with the NIC's VF driver loaded while this exists.
struct Sysfs;

impl Sysfs {
    fn new() -> Self {
        sh("modprobe igbvf").expect("the NIC's VFs have a driver");
        Self
    }
}

impl Drop for Sysfs {
    fn drop(&mut self) {
        // The next test loads it again; other tests run without it. What injects errors knows no adapter that is found anew.
        let _ = sh("modprobe -r igbvf; modprobe -r aer_inject");
    }
}

impl Shell for Sysfs {
    fn write_numvfs(&self, pf: Bdf, count: u16) -> Result<(), Errno> {
        write(&device(pf).join("sriov_numvfs"), &count.to_string())
    }

    fn numvfs(&self, pf: Bdf) -> u16 {
        read(&device(pf).join("sriov_numvfs")).parse().expect("it is a number")
    }

    fn virtfns(&self, pf: Bdf) -> Vec<Bdf> {
        let all = virtual_functions(&pf.to_string()).expect("there are as many as it says");
        let names = fs::read_dir(device(pf)).expect("the PF is there").flatten();
        let links = names.filter(|name| name.file_name().to_string_lossy().starts_with("virtfn")).count();
        assert_eq!(links, all.len(), "there are no others");
        all.iter().map(|vf| vf.parse().expect("it leads to a function")).collect()
    }

    fn driver(&self, vf: Bdf) -> Option<String> {
        driver(&vf.to_string())
    }

    fn driver_override(&self, vf: Bdf) -> Option<String> {
        Some(read(&device(vf).join("driver_override"))).filter(|name| name != "(null)")
    }

    fn write_driver_override(&self, vf: Bdf, driver: Option<&str>) {
        write(&device(vf).join("driver_override"), driver.unwrap_or("\n")).expect("it can always be written");
    }

    fn bind(&self, vf: Bdf, driver: &str) -> Result<(), Errno> {
        write(&drivers().join(driver).join("bind"), &vf.to_string())
    }

    fn unbind(&self, vf: Bdf, driver: &str) -> Result<(), Errno> {
        write(&drivers().join(driver).join("unbind"), &vf.to_string())
    }

    fn config(&self, function: Bdf) -> Vec<u8> {
        match fs::read(device(function).join("config")) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => vec![0xff; 4096],
            Err(error) => panic!("the configuration space of {function}: {error}"),
        }
    }

    fn write_config(&self, function: Bdf, offset: usize, value: u16) {
        let config = File::options().write(true).open(device(function).join("config"));
        let written = config.and_then(|config| config.write_all_at(&value.to_le_bytes(), offset as u64));
        written.expect("root may write it");
    }

    fn inject(&self, function: Bdf, severity: Severity) {
        inject(&function.to_string(), severity).expect("the kernel takes it");
    }

    fn set_up(&self, pf: Bdf, up: bool) {
        let state = if up { "up" } else { "down" };
        let command = format!("ip link set $(ls {}) {state}", device(pf).join("net").display());
        sh(&command).expect("a NIC has an interface");
    }

    fn take_out(&self, pf: Bdf) {
        sh("modprobe -r aer_inject || true").expect("it can be run");
        write(&device(pf).join("remove"), "1").expect("root may write it");
    }

    fn put_back(&self, _pf: Bdf) {
        write(Path::new("/sys/bus/pci/rescan"), "1").expect("root may write it");
    }

    fn settle(&self, pf: Bdf) {
        std::thread::sleep(RESET);
        let has_link = |net: &Path| fs::read(net.join("carrier")).is_ok_and(|carrier| carrier == b"1\n");
        let interfaces = || fs::read_dir(device(pf).join("net")).into_iter().flatten().flatten();
        self.wait_until(&|| interfaces().all(|net| has_link(&net.path())));
    }

    fn wait_until(&self, is_so: &dyn Fn() -> bool) {
        wait_until("what the kernel does by itself", PATIENCE, is_so).expect("it does it");
    }
}

fn device(function: Bdf) -> PathBuf {
    Path::new("/sys/bus/pci/devices").join(function.to_string())
}

fn drivers() -> PathBuf {
    PathBuf::from("/sys/bus/pci/drivers")
}

fn read(attribute: &Path) -> String {
    let text =
        fs::read_to_string(attribute).unwrap_or_else(|error| panic!("{}: {error}", attribute.display()));
    text.trim_end().to_owned()
}

fn write(attribute: &Path, value: &str) -> Result<(), Errno> {
    // A missing file must not be created: sysfs would refuse that with another errno.
    let written =
        File::options().write(true).open(attribute).and_then(|file| file.write_all_at(value.as_bytes(), 0));
    written.map_err(|error| {
        Errno::from_io_error(&error).unwrap_or_else(|| panic!("{}: {error}", attribute.display()))
    })
}
