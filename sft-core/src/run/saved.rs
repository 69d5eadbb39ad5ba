//! Adapters to start from, as an earlier run or PEFT left them.

use std::path::Path;

use crate::adapter::{Adapters, Head, Lora, ModelSpec, load_peft};
use crate::{Error, Result};

/// The adapters of a PEFT folder, if they are what the configuration asks for.
///
/// # Errors
/// A folder that is not PEFT's, or has other adapters than `lora` or another head than `head`; the message
/// names it.
pub(super) fn saved_adapters(
    folder: &Path,
    spec: &ModelSpec,
    lora: Lora,
    head: &Head,
) -> Result<Adapters> {
    let (found, adapters) = load_peft(folder, spec, Some(head))?;
    let bare = |lora: Lora| {
        let bare = |&index: &usize| lora.in_block(index).block_parameters(spec) == 0;
        (0..spec.depth).take_while(bare).count()
    };
    let told = |lora: Lora| {
        [
            ("rank", lora.rank().to_string()),
            ("alpha", lora.alpha().to_string()),
            ("targets", lora.targets().modules(spec).to_string()),
            ("blocks without adapters", bare(lora).to_string()),
        ]
    };
    for ((name, found), (_, wanted)) in told(found).iter().zip(told(lora)) {
        if *found != wanted {
            let reason = format!("the adapters have {name} {found}, this run has {wanted}");
            return Err(Error::file(folder, reason));
        }
    }
    let (found, wanted) = (adapters.head.classes, head.classes);
    if found != wanted {
        let reason = format!("the adapters have {found} classes, this run has {wanted}");
        return Err(Error::file(folder, reason));
    }
    if !adapters.vectors().flatten().all(|value| value.is_finite()) {
        return Err(Error::file(
            folder,
            "the adapters hold a value that is not finite",
        ));
    }
    Ok(adapters)
}
