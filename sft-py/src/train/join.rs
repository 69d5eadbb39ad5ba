use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::time::Duration;

use pyo3::prelude::*;
use sft_core::data::Data;
use sft_core::model::Pretrained;
use sft_core::net::{DeviceJob, DeviceProgress, JoinOptions, join};
use sft_core::run::{RunConfig, image_input, open_data};
use sft_core::split::Traffic;
use sft_core::{Error, Result};

use super::data::{Arrays, Labelled};
use super::watch::watched;
use crate::array::unsigned;
use crate::error::{bad_argument, detached};
use crate::net::{same_process, seconds};

/// `sft.join`. `arrays` are training images where `data` names no folder, and `full` their byte of full
/// intensity. `tell` is called with what there is to tell, a line each time.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "those of the function in Python")]
pub(crate) fn _join<'py>(
    py: Python<'py>,
    server: String,
    certs: Option<PathBuf>,
    data: Option<String>,
    arrays: Option<Labelled<'py>>,
    full: u8,
    model: Option<PathBuf>,
    cache: PathBuf,
    #[pyo3(from_py_with = threads_argument)] threads: usize,
    patience_s: f64,
    tell: &Bound<'py, PyAny>,
) -> PyResult<()> {
    same_process()?;
    let arrays = arrays.map(|(images, labels)| Arrays::extract("data", &images, labels));
    let arrays = arrays.transpose()?;
    let options = JoinOptions {
        server,
        certs,
        data,
        model,
        cache,
        threads,
        patience: seconds("patience_s", patience_s)?,
    };
    let open =
        |config: &RunConfig, model: &dyn Pretrained| open(config, model, arrays.as_ref(), full);
    let work = |sender, stop: &_| join(&options, &open, &Told(sender), stop);
    let tell = |lines: Vec<String>| {
        lines
            .into_iter()
            .try_for_each(|line| tell.call1((line,)).map(drop))
    };
    let (done, failure) = watched(py, work, tell);
    match failure {
        Some(failure) => Err(failure),
        None => detached(py, || done),
    }
}

fn threads_argument(value: &Bound<'_, PyAny>) -> PyResult<usize> {
    let threads = unsigned(value, "threads", "1..2**64")?;
    if threads == 0 {
        return Err(bad_argument("threads must be at least 1, got 0".into()));
    }
    Ok(threads)
}

/// The training data, of a copy of `arrays` where there are some.
fn open(
    config: &RunConfig,
    model: &dyn Pretrained,
    arrays: Option<&Arrays>,
    full: u8,
) -> Result<Box<dyn Data + Send>> {
    let Some(arrays) = arrays else {
        return Ok(open_data(config, model)?.0);
    };
    let classes = arrays.labels().iter().max();
    let classes = classes.map_or(0, |&label| label as usize + 1);
    let input = image_input(model)?;
    (arrays.clone()).data(classes, full, input, config.augmentation())
}

/// Where a device leaves word for Python's thread, which may listen no more.
struct Told(Sender<String>);

impl Told {
    fn tell(&self, line: String) {
        let _ = self.0.send(line);
    }
}

impl DeviceProgress for Told {
    fn ready(&self, job: &DeviceJob) {
        let sent: u64 = job.files.iter().map(|file| file.bytes).sum();
        self.tell(format!(
            "device {} with {} samples and {} blocks ({:.2} MB); memory by the model {:.1} MB",
            job.device,
            job.samples.len(),
            job.cut,
            sent as f64 / 1e6,
            job.device_memory_bytes / 1e6
        ));
    }

    fn batch(&self) {}

    fn round(&self, round: u32, traffic: Traffic) {
        self.tell(format!(
            "round {round}: {:.3} MB up, {:.3} MB down across the cut; adapters {:.3} MB",
            traffic.up as f64 / 1e6,
            traffic.down as f64 / 1e6,
            (traffic.adapter_up + traffic.adapter_down) as f64 / 1e6
        ));
    }

    fn lost(&self, reason: &Error, again: Duration) {
        self.tell(format!("{reason}; again in {:.1} s", again.as_secs_f64()));
    }
}
