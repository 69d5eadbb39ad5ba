//! Tuned adapters as safetensors.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};

use crate::{Adapters, Error, Lora, Model, Result};

/// Writes adapters and head under the names that PEFT gives them.
///
/// `A` is `[r, inputs]` and `B` `[outputs, r]`. The file appears whole or not at all.
///
/// # Errors
/// A folder that cannot be written.
pub fn save_adapters(
    path: &Path,
    model: &dyn Model,
    lora: Lora,
    adapters: &Adapters,
) -> Result<()> {
    let tensors = named_tensors(model, lora, adapters)?;
    let bytes = safetensors::serialize(&tensors, None).map_err(|e| Error::file(path, e))?;
    write_whole(path, &bytes)
}

/// Writes a file under a temporary name beside its own and renames it.
///
/// # Errors
/// A folder that cannot be written; nothing is left behind then.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("file");
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written =
        std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|e| {
        // The error that is reported is the first one.
        let _ = std::fs::remove_file(&temporary);
        Error::file(path, e)
    })
}

fn named_tensors(
    model: &dyn Model,
    lora: Lora,
    adapters: &Adapters,
) -> Result<HashMap<String, Tensor>> {
    let mut tensors = HashMap::new();
    let mut put = |name: String, values: &[f32], shape: &[usize]| -> Result<()> {
        let tensor = Tensor::from_slice(values, shape, &Device::Cpu)?;
        tensors.insert(format!("base_model.model.{name}"), tensor);
        Ok(())
    };
    for (index, block) in adapters.blocks.iter().enumerate() {
        let (path, mut rest) = (model.block_path(index), block.as_slice());
        for linear in model.linears() {
            let (a, tail) = rest.split_at(lora.rank() * linear.inputs);
            let (b, tail) = tail.split_at(lora.rank() * linear.outputs);
            rest = tail;
            let path = format!("{path}.{}", linear.name);
            put(
                format!("{path}.lora_A.weight"),
                a,
                &[lora.rank(), linear.inputs],
            )?;
            put(
                format!("{path}.lora_B.weight"),
                b,
                &[linear.outputs, lora.rank()],
            )?;
        }
    }
    let (head, path) = (&adapters.head, model.head_path());
    put(
        format!("{path}.weight"),
        &head.weight,
        &[head.classes(), model.width()],
    )?;
    put(format!("{path}.bias"), &head.bias, &[head.classes()])?;
    Ok(tensors)
}
