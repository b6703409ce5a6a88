//! The calls that ioward makes, each by its name.

use std::time::Duration;

use super::{
    connection::{Connection, nothing},
    error::LibvirtError,
    wire::{self, Domain, Procedure, State, Uuid, all_domains, one_domain, write_domain, write_uuid},
    xdr::{MAX_STRING, Writer},
};

/// `VIR_DOMAIN_XML_INACTIVE`. `VIR_DOMAIN_XML_SECURE` is never asked for: it would bring passwords.
const XML_INACTIVE: u32 = 2;

/// Which of a domain's two definitions a change is made to: `virDomainModificationImpact`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Affects {
    /// The machine that runs.
    Live = 1,
    /// What it starts with next.
    Config = 2,
    /// Both.
    Both = 3,
}

/// Which of a domain's two definitions is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Definition {
    /// Of the machine that runs; the other one when it does not.
    Current,
    /// What it starts with next.
    Persistent,
}

impl Connection {
    /// The version of libvirt: major, minor, release.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn version(&self) -> Result<(u64, u64, u64), LibvirtError> {
        let number = self
            .call("its version", Procedure::ConnectGetLibVersion, Writer::default(), wire::lib_version)
            .await?;
        Ok((number / 1_000_000, number / 1000 % 1000, number % 1000))
    }

    /// All domains, whether they run or not.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn domains(&self) -> Result<Vec<Domain>, LibvirtError> {
        // It is to give the domains and not only their number. VIR_CONNECT_LIST_DOMAINS_ACTIVE and _INACTIVE.
        let arguments = Writer::default().i32(1).u32(3);
        self.call("the list of domains", Procedure::ConnectListAllDomains, arguments, all_domains).await
    }

    /// The domain of this name.
    ///
    /// # Errors
    /// When there is none, or the call fails.
    pub async fn domain_named(&self, name: &str) -> Result<Domain, LibvirtError> {
        let call = "the domain of a name";
        let arguments = Writer::default().string(bounded(call, name)?);
        self.call(call, Procedure::DomainLookupByName, arguments, one_domain).await
    }

    /// The domain of this UUID.
    ///
    /// # Errors
    /// When there is none, or the call fails.
    pub async fn domain_with(&self, uuid: Uuid) -> Result<Domain, LibvirtError> {
        let arguments = write_uuid(Writer::default(), uuid);
        self.call("the domain of a UUID", Procedure::DomainLookupByUuid, arguments, one_domain).await
    }

    /// A definition of a domain, without passwords.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn xml(&self, domain: &Domain, which: Definition) -> Result<String, LibvirtError> {
        let flags = if which == Definition::Persistent { XML_INACTIVE } else { 0 };
        let arguments = write_domain(Writer::default(), domain).u32(flags);
        self.call("the definition of a domain", Procedure::DomainGetXmlDesc, arguments, wire::text).await
    }

    /// A domain's state, and a reason for it that depends on the state (`virDomain…Reason`).
    ///
    /// # Errors
    /// When the call fails.
    pub async fn state(&self, domain: &Domain) -> Result<(State, i32), LibvirtError> {
        let arguments = write_domain(Writer::default(), domain).u32(0);
        self.call("the state of a domain", Procedure::DomainGetState, arguments, wire::state).await
    }

    /// Whether a domain is there also while it does not run.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn is_persistent(&self, domain: &Domain) -> Result<bool, LibvirtError> {
        let arguments = write_domain(Writer::default(), domain);
        let call = "whether a domain is persistent";
        self.call(call, Procedure::DomainIsPersistent, arguments, wire::yes_or_no).await
    }

    /// Plugs a device in. One of the same alias that is on its way out is still there: wait until it is gone.
    ///
    /// # Errors
    /// When the domain does not take it, or the call fails.
    pub async fn attach(&self, domain: &Domain, device: &str, affects: Affects) -> Result<(), LibvirtError> {
        let call = "to attach a device";
        // The first VF pins the whole memory of a machine.
        let bound = self.bounds.start;
        self.with_text(bound, call, Procedure::DomainAttachDeviceFlags, domain, device, affects).await
    }

    /// Unplugs the device that is like this one. In a machine that runs this only asks the guest: the device is out with
    /// [`Event::DeviceRemoved`](wire::Event::DeviceRemoved), or when the definition has it no more. With [`Affects::Both`]
    /// nothing is done when one of the definitions has no such device.
    ///
    /// # Errors
    /// When there is no such device, or the call fails.
    pub async fn detach(&self, domain: &Domain, device: &str, affects: Affects) -> Result<(), LibvirtError> {
        let call = "to detach a device";
        self.with_text(self.bounds.call, call, Procedure::DomainDetachDeviceFlags, domain, device, affects)
            .await
    }

    /// The same for the device of this alias.
    ///
    /// # Errors
    /// When there is no such device, or the call fails.
    pub async fn detach_alias(
        &self,
        domain: &Domain,
        alias: &str,
        affects: Affects,
    ) -> Result<(), LibvirtError> {
        let call = "to detach a device by its alias";
        self.with_text(self.bounds.call, call, Procedure::DomainDetachDeviceAlias, domain, alias, affects)
            .await
    }

    /// Makes a domain, or changes what one of this name and UUID starts with next.
    ///
    /// # Errors
    /// When libvirt does not take the definition, or the call fails.
    pub async fn define(&self, xml: &str) -> Result<Domain, LibvirtError> {
        let call = "to define a domain";
        let arguments = Writer::default().string(bounded(call, xml)?).u32(0);
        self.call(call, Procedure::DomainDefineXmlFlags, arguments, one_domain).await
    }

    /// Starts a domain.
    ///
    /// # Errors
    /// When it runs, its machine does not start, or the call fails.
    pub async fn start(&self, domain: &Domain) -> Result<Domain, LibvirtError> {
        let arguments = write_domain(Writer::default(), domain).u32(0);
        let procedure = Procedure::DomainCreateWithFlags;
        self.call_within(self.bounds.start, "to start a domain", procedure, arguments, one_domain).await
    }

    /// Presses a domain's power button, and does not wait for what its guest does.
    ///
    /// # Errors
    /// When it does not run, or the call fails.
    pub async fn press_power_button(&self, domain: &Domain) -> Result<(), LibvirtError> {
        // VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
        let arguments = write_domain(Writer::default(), domain).u32(1);
        self.call("to shut a domain down", Procedure::DomainShutdownFlags, arguments, nothing).await
    }

    /// Turns a domain off.
    ///
    /// # Errors
    /// When it does not run, or the call fails.
    pub async fn turn_off(&self, domain: &Domain) -> Result<(), LibvirtError> {
        let arguments = write_domain(Writer::default(), domain).u32(0);
        let procedure = Procedure::DomainDestroyFlags;
        self.call_within(self.bounds.start, "to turn a domain off", procedure, arguments, nothing).await
    }

    /// For the procedures that take a domain, a text and [`Affects`].
    async fn with_text(
        &self,
        after: Duration,
        call: &'static str,
        procedure: Procedure,
        domain: &Domain,
        text: &str,
        affects: Affects,
    ) -> Result<(), LibvirtError> {
        let arguments =
            write_domain(Writer::default(), domain).string(bounded(call, text)?).u32(affects as u32);
        self.call_within(after, call, procedure, arguments, nothing).await
    }
}

fn bounded<'a>(call: &'static str, text: &'a str) -> Result<&'a str, LibvirtError> {
    if text.len() > MAX_STRING { Err(LibvirtError::TooLong { call, length: text.len() }) } else { Ok(text) }
}
