use std::path::PathBuf;
use std::sync::mpsc::Sender;

use pyo3::prelude::*;
use sft_core::Result;
use sft_core::data::Data;
use sft_core::model::Pretrained;
use sft_core::net::{DeviceNews, JoinOptions, join};
use sft_core::run::{RunConfig, image_input, open_data};

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
    let work = |sender: Sender<String>, stop: &_| {
        // Python's thread may listen no more.
        let tell = |news: DeviceNews<'_>| drop(sender.send(news.to_string()));
        join(&options, &open, &tell, stop)
    };
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
