//! Both ends of a link over mutual TLS.

use std::time::{Duration, Instant};

use sft_core::net::{Identity, Link, LinkLimits, Listener, connect, make_certificates};

use super::Folder;

/// Long enough for a machine that does much else.
pub const SOON: Duration = Duration::from_secs(20);

pub fn soon() -> Instant {
    Instant::now() + SOON
}

/// Certificates for a server and two devices.
pub fn certs(name: &str) -> Folder {
    let folder = Folder::new(name);
    make_certificates(&folder.0, 2, &[], 1).unwrap();
    folder
}

pub fn identity(folder: &Folder, name: &str) -> Identity {
    Identity::open(&folder.0.join(name)).unwrap()
}

pub fn listen(folder: &Folder, limits: LinkLimits) -> Listener {
    Listener::bind("127.0.0.1:0", Some(&identity(folder, "server")), limits).unwrap()
}

/// Both ends of a link of a device.
pub fn pair(folder: &Folder, listener: &Listener, device: &str) -> (Link, Link) {
    let address = listener.address().to_string();
    let client = connect(
        &address,
        Some(&identity(folder, device)),
        &LinkLimits::default(),
    );
    let client = client.unwrap();
    let server = listener.accept_until(soon()).unwrap().unwrap();
    (server, client)
}
