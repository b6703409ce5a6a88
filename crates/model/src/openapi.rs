//! Schemas of the values whose JSON is not the fields that they have: texts, and what is written in several forms. Only built
//! with the feature `openapi`; all other values derive theirs.

use std::borrow::Cow;

use serde_json::json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Object, ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema,
        schema::{AdditionalProperties, ArrayBuilder, SchemaType, Type},
    },
};

use crate::{
    AdapterId, BitRate, DomainRef, Guarantee, GuestMay, HexId, InterfaceName, Label, MacAddress, MachineType,
    MemorySize, Name, NamespaceRef, Owner, PartitionSpec, Permission, Standby, VfCount, VfRef, Vlan,
    VlanProtocol, handover::MoveId, partition_form::PartitionForm,
};

/// Texts: the type, the pattern that all of them fit, an example, and what they are. A text that fits the pattern may be
/// refused all the same, by a bound that a pattern does not tell.
macro_rules! texts {
    ($($type:ident $pattern:literal $example:literal $description:literal)*) => {$(
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some($pattern));
                text.description(Some($description)).examples([json!($example)]).into()
            }
        }

        impl ToSchema for $type {}
    )*};
}

texts! {
    MachineType "^pc-q35-[a-z0-9._-]{1,33}$" "pc-q35-10.0"
        "Type of a machine with its version, as QEMU names it."
    MoveId "^[0-9a-f]{32}$" "30313233343536373839616263646566"
        "ID of one move of one partition."
    Name "^[A-Za-z][A-Za-z0-9_-]{0,39}$" "web"
        "Name of a partition, or of a VF within its partition."
    Owner "^[A-Za-z][A-Za-z0-9_-]{0,39}/[A-Za-z][A-Za-z0-9_-]{0,39}$" "web/net0"
        "Owner of a VF: the partition's name and the VF's name in it."
    VfRef "^([A-Za-z][A-Za-z0-9_-]{0,39}/)?[A-Za-z][A-Za-z0-9_-]{0,39}$" "db/net0"
        "A VF of the same partition, or of another one."
    MacAddress "^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$" "52:54:00:aa:00:01"
        "A 48-bit Ethernet address."
    MemorySize "^[0-9]+ *(MiB|M|GiB|G|TiB|T)$" "512MiB"
        "An amount of memory in whole MiB, 16MiB to 16TiB."
    BitRate "^[0-9]+ *(Mbit|M|Gbit|G|Tbit|T)$" "500Mbit"
        "Bits per second, in whole Mbit/s. As a limit, 0Mbit means none."
    Guarantee "^[0-9]+ *(Mbit|M|Gbit|G|Tbit|T|%)$" "25%"
        "A guaranteed bandwidth: a rate, or a share of the port's, 1% to 100%."
    HexId "^[0-9A-Fa-f]{1,4}$" "8086"
        "A PCI vendor or device ID, hexadecimal."
    AdapterId "^[A-Za-z0-9_-]{1,64}$" "8086-10c9-dsn-001b21ffff123456-0"
        "A key for a physical function that stays when its address does not."
    DomainRef "^[^/]{1,255}$" "web"
        "A domain of libvirt's, by its name or its UUID."
    InterfaceName "^[^/:\\s]{1,15}$" "br0"
        "The name of a network interface of the host's."
    Standby "^([A-Za-z][A-Za-z0-9_-]{0,39}|bridge:[^/:\\s]{1,15})$" "net0-b"
        "What a VF falls back on: another VF of its partition, or an adapter on a bridge of the host's."
    Label "^.{0,128}$" "web"
        "A name that somebody else has chosen; what can't be shown is U+FFFD."
}

fn whole_number(maximum: u16) -> Object {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(maximum)).build()
}

/// An object with no other keys.
fn closed(object: ObjectBuilder) -> Object {
    object.additional_properties(Some(AdditionalProperties::FreeForm(false))).build()
}

impl PartialSchema for Vlan {
    fn schema() -> RefOr<Schema> {
        let table = ObjectBuilder::new()
            .property("id", whole_number(4094))
            .property("protocol", Ref::from_schema_name(VlanProtocol::name()))
            .property("priority", whole_number(7))
            .required("id");
        let description = "The tag that a port puts on a VF's frames: an ID alone is 802.1Q with priority 0. ID 0 is no VLAN.";
        OneOfBuilder::new().item(whole_number(4094)).item(closed(table)).description(Some(description)).into()
    }
}

impl ToSchema for Vlan {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((VlanProtocol::name().into(), VlanProtocol::schema()));
    }
}

impl PartialSchema for VfCount {
    fn schema() -> RefOr<Schema> {
        let spare = ObjectBuilder::new().property("spare", whole_number(u16::MAX)).required("spare");
        let most = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["max"]));
        let description = "A number of VFs, as many as there can be, or so many more than are assigned.";
        OneOfBuilder::new()
            .item(whole_number(u16::MAX))
            .item(most)
            .item(closed(spare))
            .description(Some(description))
            .into()
    }
}

impl ToSchema for VfCount {}

impl PartialSchema for NamespaceRef {
    fn schema() -> RefOr<Schema> {
        let of_process = ObjectBuilder::new()
            .property("pid_file", ObjectBuilder::new().schema_type(Type::String))
            .required("pid_file");
        let named = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[^/]{1,255}$"));
        let description =
            "A network namespace: its name (ip netns), or the file with the number of a process in it.";
        OneOfBuilder::new().item(named).item(closed(of_process)).description(Some(description)).into()
    }
}

impl ToSchema for NamespaceRef {}

impl PartialSchema for GuestMay {
    fn schema() -> RefOr<Schema> {
        let words: Vec<_> = Permission::all().map(Permission::as_str).collect();
        let switch_or_bound = SchemaType::from_iter([Type::Boolean, Type::String]);
        let bound = ObjectBuilder::new().schema_type(switch_or_bound).build();
        let table =
            words.iter().fold(ObjectBuilder::new(), |table, word| table.property(*word, bound.clone()));
        let word = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words));
        let description = "What a partition may change of its VF: names, or a table that narrows them (docs/spec.md). Answers have \
                           the table.";
        OneOfBuilder::new()
            .item(ArrayBuilder::new().items(word))
            .item(closed(table))
            .description(Some(description))
            .into()
    }
}

impl ToSchema for GuestMay {}

/// It is read and written as its form.
impl PartialSchema for PartitionSpec {
    fn schema() -> RefOr<Schema> {
        PartitionForm::schema()
    }
}

impl ToSchema for PartitionSpec {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("PartitionSpec")
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        PartitionForm::schemas(schemas);
    }
}
