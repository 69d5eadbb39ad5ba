//! Systems with the paper's numbers.

use sft_opt::system::ServerModel;
use sft_opt::{Device, Placement, Server};

pub(crate) const CUT: Placement = Placement::Split { cut: 5 };

pub(crate) fn devices(clocks_hz: &[f64]) -> Vec<Device> {
    let with_clock = |&clock_hz: &f64| {
        let mut device = Device::default();
        device.clock_hz = clock_hz;
        device
    };
    clocks_hz.iter().map(with_clock).collect()
}

pub(crate) fn server(model: ServerModel) -> Server {
    let mut server = Server::default();
    server.model = model;
    server
}
