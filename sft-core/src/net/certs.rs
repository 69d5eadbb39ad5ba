//! An authority and certificates of it, for trying.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use super::identity::{AUTHORITY, CERTIFICATE, KEY};
use crate::split::check_count;
use crate::{Error, Result};

/// The authority's key.
const AUTHORITY_KEY: &str = "ca-key.pem";
/// The name of the server's certificate, and of its folder.
pub(super) const SERVER: &str = "server";
/// What a server on this machine is reached by.
const HERE: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Writes a new authority, a certificate for a server and one for each device: `ca.pem` and `ca-key.pem`
/// in the folder, and in each of `server`, `device-0`, .. what an [`Identity`](super::Identity) is
/// read from. Keys can be read by their owner alone.
///
/// `hosts` are the names and addresses that devices reach the server by, beside those of this machine.
/// For a deployment certificates are better made where each key is used.
///
/// # Errors
/// A folder that has an authority already, or cannot be written; no devices, or no days.
pub fn make_certificates(
    folder: &Path,
    devices: usize,
    hosts: &[String],
    valid_days: u32,
) -> Result<()> {
    check_count("devices", devices)?;
    Error::require(
        (1..=36_500).contains(&valid_days),
        "days",
        valid_days,
        "in 1..=36500",
    )?;
    let there = folder.join(AUTHORITY);
    if there.exists() {
        return Err(Error::file(there, "is there already: name another folder"));
    }
    let failed = |e: rcgen::Error| Error::argument("host", format!("makes no certificate: {e}"));
    let authority = authority(valid_days).map_err(failed)?;
    let leaf = |name: &str, hosts: Vec<String>, usage| -> Result<()> {
        let (certificate, key) =
            signed(name, hosts, usage, valid_days, &authority).map_err(failed)?;
        let folder = folder.join(name);
        write(&folder.join(AUTHORITY), &authority.pem(), false)?;
        write(&folder.join(CERTIFICATE), &certificate, false)?;
        write(&folder.join(KEY), &key, true)
    };
    let own = HERE
        .iter()
        .map(ToString::to_string)
        .chain(hosts.iter().cloned());
    leaf(SERVER, own.collect(), ExtendedKeyUsagePurpose::ServerAuth)?;
    for device in 0..devices {
        let name = format!("device-{device}");
        leaf(
            &name,
            vec![name.clone()],
            ExtendedKeyUsagePurpose::ClientAuth,
        )?;
    }
    write(
        &folder.join(AUTHORITY_KEY),
        &authority.key().serialize_pem(),
        true,
    )?;
    // Last, for a folder with it is whole.
    write(&there, &authority.pem(), false)
}

fn authority(days: u32) -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = named("sft authority", Vec::new(), days)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}

/// Certificate and key of a name, in PEM.
fn signed(
    name: &str,
    hosts: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
    days: u32,
    authority: &CertifiedIssuer<'static, KeyPair>,
) -> Result<(String, String), rcgen::Error> {
    let mut params = named(name, hosts, days)?;
    params.extended_key_usages = vec![usage];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn named(name: &str, hosts: Vec<String>, days: u32) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    // Clocks of devices may be a little behind.
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(days.into());
    Ok(params)
}

/// Writes a file that is not there yet, and the folder above it.
fn write(path: &Path, text: &str, secret: bool) -> Result<()> {
    let failed = |e| Error::file(path, e);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    if secret {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    #[cfg(not(unix))]
    let _ = secret;
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}
