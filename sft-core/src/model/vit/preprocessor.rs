//! What files beside the weights say of a model's images: `preprocessor_config.json` of Hugging
//! Face, `pretrained_cfg` of timm.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::data::{Filter, Fit, ImageInput, Resize};

/// The file of Hugging Face, for messages.
const FILE: &str = "preprocessor_config.json";
/// Settings that are read.
const READ: [&str; 10] = [
    "crop_size",
    "do_center_crop",
    "do_normalize",
    "do_rescale",
    "do_resize",
    "image_mean",
    "image_std",
    "resample",
    "rescale_factor",
    "size",
];
/// Settings that change nothing of what is computed, whatever they are.
const HARMLESS: [&str; 13] = [
    "_valid_processor_keys",
    "data_format",
    "default_to_square",
    "device",
    "disable_grouping",
    "do_convert_rgb",
    "feature_extractor_type",
    "image_processor_type",
    "input_data_format",
    "pad_size",
    "processor_class",
    "return_tensors",
    "transformers_version",
];
/// Filters by Pillow's numbers and timm's names.
const FILTERS: [(u64, &str, Filter); 3] = [
    (1, "lanczos", Filter::Lanczos),
    (2, "bilinear", Filter::Bilinear),
    (3, "bicubic", Filter::Bicubic),
];
/// timm's share of the resized image that is cut out, where a configuration names none.
const TIMM_CROP: f64 = 0.875;
/// The largest side that images are resized to, pixels.
const LARGEST: u64 = 1 << 16;

/// The images of a model of this side and number of channels: as the preprocessor says, else as the
/// configuration of timm does; else with 0.5 for mean and standard deviation, and resized as the
/// data set has it.
///
/// # Errors
/// What the files ask for and cannot be done, by its name.
pub(super) fn image_input(
    side: usize,
    channels: usize,
    config: Option<&Value>,
    preprocessor: Option<&Value>,
) -> Result<ImageInput, String> {
    let timm = config.and_then(|json| json.get("pretrained_cfg"));
    let input = match (preprocessor, timm) {
        (Some(json), _) => hugging_face(json, side, channels)?,
        (None, Some(json)) => of_timm(json, side)?,
        (None, None) => ImageInput {
            side,
            mean: vec![0.5; channels],
            std: vec![0.5; channels],
            fit: None,
        },
    };
    let (mean, std) = (input.mean.len(), input.std.len());
    if (mean, std) != (channels, channels) {
        return Err(format!(
            "image_mean and image_std need {channels} values, got {mean} and {std}"
        ));
    }
    if let Some(bad) = input.std.iter().find(|&&s| !(s.is_finite() && s > 0.0)) {
        return Err(format!("image_std must be positive, got {bad}"));
    }
    match input.mean.iter().find(|mean| !mean.is_finite()) {
        Some(bad) => Err(format!("image_mean must be finite, got {bad}")),
        None => Ok(input),
    }
}

/// `preprocessor_config.json` of what was done to images.
pub(super) fn write(input: &ImageInput) -> Value {
    let fit = input.fit.unwrap_or(Fit::whole(input.side));
    let number = FILTERS.iter().find(|(_, _, filter)| *filter == fit.filter);
    let square = |side: usize| json!({ "height": side, "width": side });
    let (kind, size) = match fit.resize {
        Resize::Both(side) if side == input.side => ("ViTImageProcessor", square(side)),
        Resize::Both(side) => ("DeiTImageProcessor", square(side)),
        Resize::Shorter(side) => ("BitImageProcessor", json!({ "shortest_edge": side })),
    };
    let mut file = json!({
        "image_processor_type": kind,
        "do_resize": true,
        "size": size,
        "resample": number.map(|(number, ..)| number),
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": short(&input.mean),
        "image_std": short(&input.std),
    });
    if fit.resize != Resize::Both(input.side) {
        file["do_center_crop"] = true.into();
        file["crop_size"] = square(input.side);
    }
    file
}

/// With the few digits that single precision needs.
fn short(values: &[f32]) -> Vec<Value> {
    let number = |value: &f32| value.to_string().parse::<f64>();
    values
        .iter()
        .map(|value| json!(number(value).ok()))
        .collect()
}

/// What a processor of Hugging Face does where its file does not say.
struct Defaults {
    /// A number for a size is both sides, else the shorter one.
    square: bool,
    size: Option<u64>,
    resample: u64,
    crop: bool,
}

fn defaults(object: &Map<String, Value>) -> Result<Defaults, String> {
    let name = |key| object.get(key).and_then(Value::as_str);
    let name = name("image_processor_type").or_else(|| name("feature_extractor_type"));
    let family = name.map(|name| {
        let end = name
            .find("ImageProcessor")
            .or(name.find("FeatureExtractor"));
        &name[..end.unwrap_or(name.len())]
    });
    let (square, size, resample, crop) = match family {
        None | Some("ViT") => (true, None, 2, false),
        Some("DeiT") => (true, Some(256), 3, true),
        Some("Bit" | "CLIP") => (false, Some(224), 3, true),
        Some(other) => {
            return Err(format!(
                "{FILE}: image_processor_type must be one of ViT, DeiT, Bit or CLIP, got {other}"
            ));
        }
    };
    let square = object
        .get("default_to_square")
        .and_then(Value::as_bool)
        .unwrap_or(square);
    Ok(Defaults {
        square,
        size,
        resample,
        crop,
    })
}

fn hugging_face(json: &Value, side: usize, channels: usize) -> Result<ImageInput, String> {
    let object = json.as_object();
    let object = object.ok_or_else(|| format!("{FILE}: must be an object, got {json}"))?;
    let unknown = object.iter().find(|(key, value)| {
        let known = READ.contains(&key.as_str()) || HARMLESS.contains(&key.as_str());
        !known && !matches!(value, Value::Null | Value::Bool(false))
    });
    if let Some((key, value)) = unknown {
        return Err(format!(
            "{FILE}: {key} is {value}: this cannot be done to images here"
        ));
    }
    let defaults = defaults(object)?;
    let flag = |key, default| match &json[key] {
        Value::Null => Ok(default),
        Value::Bool(flag) => Ok(*flag),
        other => Err(format!("{FILE}: {key} must be true or false, got {other}")),
    };
    let number = |key, default: f64| match &json[key] {
        Value::Null => Ok(default),
        value => match value.as_f64() {
            Some(number) if number.is_finite() && number > 0.0 => Ok(number),
            _ => Err(format!(
                "{FILE}: {key} must be a number above 0, got {value}"
            )),
        },
    };
    if !flag("do_resize", true)? {
        return Err(format!("{FILE}: do_resize must be true, got false"));
    }
    let filter = filter(&json["resample"], defaults.resample)?;
    let size = match &json["size"] {
        Value::Null => json!(defaults.size.unwrap_or(side as u64)),
        size => size.clone(),
    };
    let resize = resize("size", &size, defaults.square)?;
    if flag("do_center_crop", defaults.crop)? {
        let crop = match &json["crop_size"] {
            Value::Null => Resize::Both(side),
            size => self::resize("crop_size", size, true)?,
        };
        cut(resize, crop, side)?;
    } else if resize != Resize::Both(side) {
        return Err(format!(
            "{FILE}: size must be the model's {side} by {side} pixels without do_center_crop, \
             got {size}"
        ));
    }
    // In units of 1/255, that is of what one level of a byte is worth in [0, 1].
    let factor = if flag("do_rescale", true)? {
        255.0 * number("rescale_factor", 1.0 / 255.0)?
    } else {
        255.0
    };
    let unit = if (factor - 1.0).abs() < 1e-6 {
        1.0
    } else {
        factor as f32
    };
    let scaled = |values: Vec<f32>| values.into_iter().map(|v| v / unit).collect::<Vec<_>>();
    let (mean, std) = if flag("do_normalize", true)? {
        (numbers(&json["image_mean"])?, numbers(&json["image_std"])?)
    } else {
        (vec![0.0; channels], vec![1.0; channels])
    };
    Ok(ImageInput {
        side,
        mean: scaled(mean),
        std: scaled(std),
        fit: Some(Fit { resize, filter }),
    })
}

/// A crop must be what the model takes, and within the resized image.
fn cut(resize: Resize, crop: Resize, side: usize) -> Result<(), String> {
    if crop != Resize::Both(side) {
        let got = crop.shorter();
        return Err(format!(
            "{FILE}: crop_size must be the model's {side} pixels, got {got}"
        ));
    }
    if resize.shorter() < side {
        let got = resize.shorter();
        return Err(format!(
            "{FILE}: size must be at least crop_size, {side} pixels, got {got}"
        ));
    }
    Ok(())
}

/// A size in one of the forms that Hugging Face has for it.
fn resize(key: &str, json: &Value, square: bool) -> Result<Resize, String> {
    let pixels = |value: &Value| {
        let pixels = value
            .as_u64()
            .filter(|pixels| (1..=LARGEST).contains(pixels));
        pixels.map(|pixels| pixels as usize)
    };
    let only = |keys: &[&str]| {
        let object = json.as_object();
        object.is_some_and(|object| {
            let set = object.iter().filter(|(_, value)| !value.is_null());
            set.clone().count() == keys.len()
                && set.clone().all(|(key, _)| keys.contains(&key.as_str()))
        })
    };
    let found = if only(&["height", "width"]) && json["height"] == json["width"] {
        pixels(&json["height"]).map(Resize::Both)
    } else if only(&["shortest_edge"]) {
        pixels(&json["shortest_edge"]).map(Resize::Shorter)
    } else {
        pixels(json).map(|side| {
            if square {
                Resize::Both(side)
            } else {
                Resize::Shorter(side)
            }
        })
    };
    found.ok_or_else(|| {
        format!(
            "{FILE}: {key} must be a number from 1 to {LARGEST}, such a height with an equal \
             width, or such a shortest_edge, got {json}"
        )
    })
}

fn filter(json: &Value, default: u64) -> Result<Filter, String> {
    let number = if json.is_null() {
        Some(default)
    } else {
        json.as_u64()
    };
    let known = FILTERS.iter().find(|(known, ..)| Some(*known) == number);
    known.map(|(.., filter)| *filter).ok_or_else(|| {
        format!("{FILE}: resample must be 1 (Lanczos), 2 (bilinear) or 3 (bicubic), got {json}")
    })
}

/// What timm's evaluation does; where the margins of a crop differ by a pixel, the smaller one is at
/// the left and at the top.
fn of_timm(json: &Value, side: usize) -> Result<ImageInput, String> {
    let word = |key, default| match &json[key] {
        Value::Null => Ok(default),
        Value::String(word) => Ok(word.as_str()),
        other => Err(format!(
            "pretrained_cfg: {key} must be a string, got {other}"
        )),
    };
    let name = word("interpolation", "bicubic")?;
    let Some((.., filter)) = FILTERS.iter().find(|(_, known, _)| *known == name) else {
        return Err(format!(
            "pretrained_cfg: interpolation must be lanczos, bilinear or bicubic, got {name}"
        ));
    };
    let share = match &json["crop_pct"] {
        Value::Null => Some(TIMM_CROP),
        share => share.as_f64(),
    };
    let Some(share) = share.filter(|&share| share > 0.0 && share <= 1.0) else {
        let got = &json["crop_pct"];
        return Err(format!(
            "pretrained_cfg: crop_pct must be above 0 and at most 1, got {got}"
        ));
    };
    let size = (side as f64 / share).floor();
    if size > LARGEST as f64 {
        return Err(format!(
            "pretrained_cfg: crop_pct {share} asks for more than {LARGEST} pixels"
        ));
    }
    let resize = match word("crop_mode", "center")? {
        "center" => Resize::Shorter(size as usize),
        "squash" => Resize::Both(size as usize),
        other => {
            return Err(format!(
                "pretrained_cfg: crop_mode must be center or squash, got {other}"
            ));
        }
    };
    Ok(ImageInput {
        side,
        mean: numbers(&json["mean"])?,
        std: numbers(&json["std"])?,
        fit: Some(Fit {
            resize,
            filter: *filter,
        }),
    })
}

fn numbers(json: &Value) -> Result<Vec<f32>, String> {
    let list = Vec::deserialize(json);
    list.map_err(|e| format!("mean and std must be lists of numbers, got {json}: {e}"))
}
