//! Domains that have VFs already become partitions as they are, and are forgotten as they are.

use ioward_model::{
    Adoptable, AdoptableFunction, Holder, Intent, Label, Name, Process, Runs, State, Step, VfSettings,
};

use crate::world::*;

const QEMU: u32 = 812;
/// The VF as a Spec asks for it.
const VF: &str = "net0 network pf=\"0000:01:00.0\" mac=\"52:54:00:aa:00:07\" vlan=100 trust=false spoofchk=true \
                  min_tx_rate=\"100Mbit\"";

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn qemu(pid: u32, domain: &str) -> Holder {
    let runs = Runs::LibvirtDomain { name: Label::new(domain) };
    Holder::Process(Process { pid, command: Label::new("qemu-system-x86"), runs })
}

/// A NIC that gives four VFs, of which a domain that runs has the second.
fn world() -> World {
    let settings = VfSettings {
        mac: "52:54:00:aa:00:07".parse().ok(),
        vlan: "100".parse().ok(),
        trust: Some(false),
        spoofchk: Some(true),
        max_tx_rate: "0Mbit".parse().ok(),
        min_tx_rate: "100Mbit".parse().ok(),
        ..VfSettings::default()
    };
    host().nic(NIC, 7).giving(4).with_vf_held(1, "vfio-pci", qemu(QEMU, "web")).but(|pf| {
        pf.drivers_autoprobe = Some(false);
        pf.virtual_functions[1].settings = settings;
        // One that nobody has, and nobody has bound.
        pf.virtual_functions[0].driver = None;
    })
}

fn function(address: &str) -> AdoptableFunction {
    let function = at(address);
    let (live, next) = (true, true);
    AdoptableFunction {
        function,
        managed: false,
        interface: false,
        alias: None,
        vf: None,
        live,
        next,
        also_of: None,
    }
}

/// The second VF of the NIC.
fn its_vf() -> AdoptableFunction {
    function("0000:01:10.2")
}

fn running(functions: &[AdoptableFunction]) -> Adoptable {
    Adoptable {
        name: "web".into(),
        uuid: "4dea22b3-1d52-d8f3-2516-782e98ab3fa0".into(),
        running: true,
        pid: Some(QEMU),
        persistent: true,
        functions: functions.to_vec(),
    }
}

fn adopt(partition: &str, found: Adoptable) -> Intent {
    let (domain, partition) = ("web".parse().unwrap(), Some(name(partition)));
    Intent::Adopt { domain, partition, found: Some(Box::new(found)) }
}

fn release(partition: &str) -> Intent {
    Intent::Release { partition: name(partition) }
}

/// As libvirt starts it: the inventory hides what is a partition's own.
fn hide_holders(world: &mut World) {
    for pf in &mut world.inventory.physical_functions {
        for vf in &mut pf.virtual_functions {
            vf.owner = world.state.owner(ioward_model::VfId { pf: pf.address, index: vf.index });
            vf.holder = vf.holder.take().filter(|_| vf.owner.is_none());
        }
    }
}

fn adopted() -> World {
    let mut world = world();
    world.does(&adopt("shop", running(&[its_vf()])), SAFE);
    world.state.partitions.get_mut(&name("shop")).unwrap().running = true;
    hide_holders(&mut world);
    world
}

/// The Spec of all that is held.
fn held(state: &State) -> Intent {
    Intent::Apply { spec: state.to_spec() }
}

#[test]
fn a_domain_is_taken_over_as_it_is_and_its_spec_is_nothing_to_do() {
    let mut world = world();
    let before = world.inventory.clone();
    let steps = world.does(&adopt("shop", running(&[its_vf()])), SAFE);
    assert_eq!(
        steps,
        [
            "note how 0000:01:00.0 was found: 4 VFs, autoprobe false",
            "create partition shop: domain web",
            "assign VF 1 of 0000:01:00.0 to shop/net0",
            "take over VF 1 of 0000:01:00.0, which shop has, as net0",
        ]
    );
    assert_eq!(world.inventory, before, "nothing of the host changes");
    let shop =
        of_kind("libvirt", &partition("shop", &[VF])).replace("libvirt = \"shop\"", "libvirt = \"web\"");
    let applied = spec(&[adapter(NIC, "4"), shop]);
    assert_eq!(held(&world.state), applied, "what is not set is not asked for");
    hide_holders(&mut world);
    assert_eq!(world.does(&applied, SAFE), [""; 0]);
}

#[test]
fn its_channel_comes_with_the_first_thing_that_is_given_to_it() {
    let mut world = adopted();
    let Intent::Apply { spec: mut wish } = held(&world.state) else { unreachable!() };
    wish.partitions[0].vfs.push(request("net1 network mac=\"52:54:00:aa:00:08\""));
    let wish = Intent::Apply { spec: wish };
    let steps = world.does(&wish, SAFE);
    assert_eq!(
        steps[1..],
        [
            "assign VF 0 of 0000:01:00.0 to shop/net1",
            "configure VF 0 of 0000:01:00.0: mac=52:54:00:aa:00:08",
            "bind VF 0 of 0000:01:00.0 to vfio-pci",
            "create the channel of shop",
            "attach VF 0 of 0000:01:00.0 to shop as net1",
        ],
        "the VF that it had is not touched"
    );
    assert_eq!(world.does(&wish, SAFE), [""; 0]);
}

#[test]
fn neither_a_start_nor_a_vf_less_gives_it_a_channel() {
    let mut world = world();
    world.inventory.physical_functions[0].virtual_functions[2].driver = Some("vfio-pci".into());
    let other = AdoptableFunction { live: false, ..function("0000:01:10.4") };
    world.inventory.physical_functions[0].virtual_functions[1].holder = Some(Holder::Nobody);
    let off = Adoptable {
        running: false,
        pid: None,
        ..running(&[AdoptableFunction { live: false, ..its_vf() }, other])
    };
    world.does(&adopt("web", off), SAFE);
    assert_eq!(world.vf_of("web/net1"), "0000:01:00.0/2");
    assert_eq!(world.does(&start("web"), SAFE), ["start partition web"]);
    let steps = world.does(&detach("web", "net1"), DISRUPT);
    assert!(!steps.iter().any(|step| step.contains("channel")), "{steps:#?}");
}

/// Removing takes VFs back: they are as they were found, on the driver that their owner had bound them to.
#[test]
fn one_that_is_removed_leaves_its_vfs_as_they_were_found() {
    let mut world = adopted();
    let before = world.inventory.clone();
    let steps = world.does(&remove("shop"), SAFE);
    assert_eq!(steps[..2], ["detach net0 (VF 1 of 0000:01:00.0) from shop", "reset VF 1 of 0000:01:00.0"]);
    assert!(steps.contains(&"bind VF 1 of 0000:01:00.0 to vfio-pci".to_owned()), "{steps:#?}");
    let mut after = world.inventory.clone();
    after.physical_functions[0].virtual_functions[1].owner =
        before.physical_functions[0].virtual_functions[1].owner.clone();
    assert_eq!(after, before);
    assert_eq!(world.state.adapters.len(), 0);
}

#[test]
fn one_that_is_released_is_forgotten_and_nothing_of_the_host_changes() {
    let mut world = adopted();
    let before = world.inventory.clone();
    let steps = world.does(&release("shop"), SAFE);
    assert_eq!(
        steps,
        [
            "forget net0 (VF 1 of 0000:01:00.0), which shop keeps",
            "take VF 1 of 0000:01:00.0 from shop/net0",
            "remove partition shop",
            "let go of 0000:01:00.0",
        ]
    );
    assert_eq!(world.inventory, before);
    assert_eq!(State { revision: 0, ..world.state }, State::default());
}

/// Also where ioward has made the VFs: only what has no effect on what is there is put back.
#[test]
fn the_vfs_that_ioward_made_stay_with_the_domain_and_their_number_with_the_adapter() {
    let mut world = host().nic(NIC, 7);
    let net0 = "net0 network mac=\"52:54:00:aa:00:01\"";
    world.does(
        &spec(&[of_kind("libvirt", &partition("web", &[net0])), partition("db", &["net0 network"])]),
        SAFE,
    );
    assert_eq!(
        world.does(&release("web"), SAFE),
        [
            "forget net0 (VF 0 of 0000:01:00.0), which web keeps",
            "destroy the channel of web",
            "take VF 0 of 0000:01:00.0 from web/net0",
            "remove partition web",
        ],
        "the adapter has another partition's VF"
    );
    let mut world = host().nic(NIC, 7);
    world.does(&spec(&[of_kind("libvirt", &partition("web", &[net0]))]), SAFE);
    assert_eq!(
        world.does(&release("web"), SAFE)[4..],
        [
            "note how 0000:01:00.0 was found: 1 VFs, autoprobe true",
            "turn driver autoprobe on for 0000:01:00.0",
            "let go of 0000:01:00.0",
        ]
    );
    let pf = world.pf(at(NIC));
    assert_eq!((pf.num_vfs(), pf.virtual_functions[0].driver.as_deref()), (1, Some("vfio-pci")));
    assert_eq!(pf.virtual_functions[0].settings.mac.unwrap().to_string(), "52:54:00:aa:00:01");
}

#[test]
fn only_a_domain_is_released() {
    let mut world = host().nic(NIC, 7);
    world.does(&spec(&[partition("db", &["net0 network"]), of_kind("netns", &partition("pod", &[]))]), SAFE);
    for name in ["db", "pod"] {
        let told = world.refuses(&release(name), ANYTHING);
        assert!(
            told.starts_with("[PartitionKind]") && told.contains(&format!("ioward remove {name}")),
            "{told}"
        );
    }
    assert!(world.refuses(&release("nosuch"), SAFE).starts_with("[PartitionExists]"));
}

#[test]
fn what_is_not_iowards_to_take_over_is_left_out_and_named() {
    let world = world();
    let managed = AdoptableFunction { managed: true, ..function("0000:01:10.4") };
    let interface = AdoptableFunction { managed: true, interface: true, ..function("0000:01:10.6") };
    let gpu = function("0000:09:00.0");
    let edited = AdoptableFunction { live: false, ..function("0000:01:10.0") };
    let found = running(&[its_vf(), managed.clone(), interface, gpu, edited]);
    let plan = world.plan(&adopt("shop", found), SAFE).unwrap();
    let adopted = plan.steps.iter().filter(|step| matches!(step, Step::AdoptVf { .. }));
    assert_eq!(adopted.count(), 1);
    let told = told(&plan.left_out);
    for (function, why) in [
        ("0000:01:10.4", "managed='yes'"),
        ("0000:01:10.6", "<interface type='hostdev'>"),
        ("0000:09:00.0", "a VF of an SR-IOV adapter"),
        ("0000:01:10.0", "its machine runs without it"),
    ] {
        assert!(
            told.lines().any(|line| line.contains(function) && line.contains(why)),
            "{function}: {why}: {told}"
        );
    }
    let told = world.refuses(&adopt("shop", running(&[managed])), ANYTHING);
    assert!(told.contains("that can be taken over; found none") && told.contains("managed='yes'"), "{told}");
}

#[test]
fn a_vf_that_somebody_else_has_is_refused_with_who_it_is() {
    let held_by = |holder| world().but(|pf| pf.virtual_functions[1].holder = Some(holder));
    let off =
        Adoptable { running: false, pid: None, ..running(&[AdoptableFunction { live: false, ..its_vf() }]) };
    let two = AdoptableFunction { also_of: Some("mail".into()), ..its_vf() };
    for (world, found, why) in [
        (held_by(qemu(9, "mail")), running(&[its_vf()]), "it is held by libvirt domain mail (qemu pid 9)"),
        (held_by(Holder::Nobody), running(&[its_vf()]), "no process has it open"),
        (held_by(qemu(QEMU, "web")), off, "it is held by libvirt domain web"),
        (world(), running(&[two]), "the domain mail has it in its definition, too"),
    ] {
        let told = world.refuses(&adopt("shop", found), ANYTHING);
        assert!(told.starts_with("[VfFree] shop: 0000:01:10.2: ") && told.contains(why), "{told}");
    }
    let world = adopted();
    let mut other = running(&[its_vf()]);
    other.name = "mail".into();
    let intent = Intent::Adopt {
        domain: "mail".parse().unwrap(),
        partition: Some(name("mail")),
        found: Some(Box::new(other)),
    };
    assert!(world.refuses(&intent, ANYTHING).contains("it is shop/net0"));
}

#[test]
fn a_domain_is_taken_over_once() {
    let world = adopted();
    let told = world.refuses(&adopt("web", running(&[its_vf()])), ANYTHING);
    assert!(
        told.contains("domain web is partition shop already") && told.contains("ioward attach shop"),
        "{told}"
    );
    let intent = |domain: &str| Intent::Adopt {
        domain: domain.parse().unwrap(),
        partition: Some(name("shop")),
        found: Some(Box::new(running(&[its_vf()]))),
    };
    assert!(world.refuses(&intent("mail"), ANYTHING).contains("--name NAME"));
    let unseen = Intent::Adopt { domain: "web".parse().unwrap(), partition: None, found: None };
    assert!(world.refuses(&unseen, ANYTHING).starts_with("[Domain]"));
}

#[test]
fn vfs_are_named_by_their_aliases_where_these_are_names() {
    let mut world = world();
    for vf in &mut world.inventory.physical_functions[0].virtual_functions {
        (vf.driver, vf.holder) = (Some("vfio-pci".into()), Some(qemu(QEMU, "web")));
    }
    let with =
        |address: &str, alias: &str| AdoptableFunction { alias: Some(alias.into()), ..function(address) };
    let ours = AdoptableFunction { vf: Some(name("net0")), ..with("0000:01:10.6", "ua-ioward-net0") };
    let found = [
        with("0000:01:10.0", "hostdev0"),
        with("0000:01:10.2", "ua-uplink"),
        with("0000:01:10.4", "ua-1st"),
        ours,
    ];
    world.does(&adopt("web", running(&found)), SAFE);
    let held = &world.state.partitions[&name("web")].vfs;
    let names: Vec<_> = held.iter().map(|(name, held)| format!("{name} {}", held.vf.index)).collect();
    assert_eq!(names, ["net0 3", "net1 0", "net2 2", "uplink 1"]);
}

/// A MAC of zeros is none, and one that ioward makes up would change what runs.
#[test]
fn a_vf_without_an_address_of_its_own_keeps_to_that() {
    let mut world = world().but(|pf| pf.virtual_functions[1].settings = VfSettings::default());
    world.does(&adopt("shop", running(&[its_vf()])), SAFE);
    hide_holders(&mut world);
    let Intent::Apply { spec: mut wish } = held(&world.state) else { unreachable!() };
    wish.partitions[0].vfs.push(request("net1 network"));
    let steps = world.does(&Intent::Apply { spec: wish }, SAFE);
    assert!(!steps.iter().any(|step| step.starts_with("configure VF 1")), "{steps:#?}");
}
