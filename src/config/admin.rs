//! The flags that say where the admin server is.

use std::net::SocketAddr;

use super::name;
use super::report::Report;
use crate::cli::AdminFlags;

/// Where the admin server listens, if there is to be one. Beyond loopback only if that is said to be meant.
pub fn address(flags: &AdminFlags, report: &mut Report) -> Option<SocketAddr> {
    let any = match flags.admin_reach.as_str() {
        "loopback" => false,
        "any" => true,
        other => {
            return report.note("--admin-reach", Err(format!("expected loopback or any, found {other:?}")));
        }
    };
    let address = report.note("--admin", name::listen_address(flags.admin.as_deref()?))?;
    if any || address.ip().to_canonical().is_loopback() {
        return Some(address);
    }
    let why = "whoever can reach another could ask and order (--admin-reach any allows it)";
    report.note("--admin", Err(format!("expected a loopback address, as {why}, found {address}")))
}
