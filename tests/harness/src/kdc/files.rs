//! The files of a realm.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use super::KdcOptions;

/// Writes krb5.conf and kdc.conf into `dir`.
pub(super) fn write(dir: &Path, options: &KdcOptions, address: SocketAddr) -> Result<()> {
    fs::write(dir.join("krb5.conf"), krb5_conf(dir, options, address))?;
    fs::write(dir.join("kdc.conf"), kdc_conf(dir, options, address))?;
    Ok(())
}

/// Nothing may be looked up, and nothing written outside of `dir`.
fn krb5_conf(dir: &Path, options: &KdcOptions, address: SocketAddr) -> String {
    let KdcOptions { realm, ticket_life, clock_skew, timesync } = options;
    let dir = dir.display();
    format!(
        "[libdefaults]\n\
         \x20 default_realm = {realm}\n\
         \x20 dns_lookup_kdc = false\n\
         \x20 dns_lookup_realm = false\n\
         \x20 dns_canonicalize_hostname = false\n\
         \x20 rdns = false\n\
         \x20 clockskew = {skew}\n\
         \x20 kdc_timesync = {timesync}\n\
         \x20 ticket_lifetime = {life}s\n\
         \x20 default_ccache_name = FILE:{dir}/tickets-%{{uid}}\n\
         \x20 default_keytab_name = FILE:{dir}/no.keytab\n\
         \x20 default_client_keytab_name = FILE:{dir}/no.keytab\n\
         [realms]\n\
         \x20 {realm} = {{\n\
         \x20   kdc = {address}\n\
         \x20 }}\n\
         [domain_realm]\n\
         \x20 localhost = {realm}\n",
        skew = clock_skew.as_secs(),
        timesync = u8::from(*timesync),
        life = ticket_life.as_secs(),
    )
}

fn kdc_conf(dir: &Path, options: &KdcOptions, address: SocketAddr) -> String {
    let KdcOptions { realm, ticket_life, .. } = options;
    let dir = dir.display();
    format!(
        "[realms]\n\
         \x20 {realm} = {{\n\
         \x20   kdc_listen = {address}\n\
         \x20   kdc_tcp_listen = {address}\n\
         \x20   database_name = {dir}/principals\n\
         \x20   key_stash_file = {dir}/stash\n\
         \x20   acl_file = {dir}/no.acl\n\
         \x20   max_life = {life}s\n\
         \x20   default_principal_flags = +preauth\n\
         \x20 }}\n\
         [logging]\n\
         \x20 kdc = FILE:{dir}/kdc.log\n\
         \x20 default = FILE:{dir}/admin.log\n",
        life = ticket_life.as_secs(),
    )
}
