//! Pictures as Pillow, transformers and timm see them, and what a folder holds beside pictures.
//!
//! `fixtures/make_pictures.py` wrote the expected values.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use common::Folder;
use sft_core::adapter::{Adapters, Head, Lora};
use sft_core::data::{
    Augment, Data, Filter, Fit, ImageFiles, ImageInput, Images, Resize, image_folder, tiny_imagenet,
};
use sft_core::model::{Pretrained, PretrainedVit};

fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    folder.join(name)
}

fn load(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture(name), &Device::Cpu).unwrap()
}

fn picture(name: &str) -> Vec<u8> {
    std::fs::read(fixture("pictures").join(name)).unwrap()
}

/// What gives values in levels of 255.
fn levels(side: usize, fit: Option<Fit>) -> ImageInput {
    ImageInput {
        side,
        mean: vec![0.0; 3],
        std: vec![1.0 / 255.0; 3],
        fit,
    }
}

/// The input that is made of the first image.
fn first(data: &dyn Data) -> Tensor {
    let batch = data.batch(&[0]).unwrap();
    batch.inputs.pixels().unwrap().get(0).unwrap()
}

/// A training set of one file, and a test set of another.
fn folder(name: &str, bytes: &[u8]) -> Folder {
    let folder = Folder::new("pictures");
    folder.write(&format!("train/class/{name}"), bytes);
    folder.write("test/class/1.png", &picture("wide.png"));
    folder
}

fn differences(a: &Tensor, b: &Tensor) -> (f32, f32) {
    let apart = (a - b).unwrap().abs().unwrap();
    let scalar = |tensor: candle_core::Result<Tensor>| tensor.unwrap().to_scalar().unwrap();
    (scalar(apart.max_all()), scalar(apart.mean_all()))
}

#[test]
fn pictures_of_every_format_are_those_of_pillow() {
    let expected = load("pictures.safetensors");
    assert_eq!(expected.len(), 21);
    for (name, want) in expected {
        let folder = folder(&name, &picture(&name));
        let (train, _) = image_folder(&folder.0, &levels(20, Some(Fit::whole(20)))).unwrap();
        let want = want.permute((2, 0, 1)).unwrap();
        let want = want.to_dtype(DType::F32).unwrap();
        let (largest, mean) = differences(&first(&train), &want);
        assert!(
            largest <= 3.01,
            "{name}: {largest} of 255, {mean} in the mean"
        );
    }
}

/// The settings of a processor, and the pictures that it makes.
fn settings() -> serde_json::Value {
    let text = std::fs::read_to_string(fixture("processed.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn read(config: Option<&str>, preprocessor: Option<&str>) -> Result<PretrainedVit, String> {
    let bytes = std::fs::read(fixture("hugging_face").join("model.safetensors")).unwrap();
    PretrainedVit::from_bytes(&bytes, config, preprocessor, Some(4))
}

fn timm(settings: &str) -> Result<PretrainedVit, String> {
    let config = format!(r#"{{"architecture": "vit_tiny", "pretrained_cfg": {settings}}}"#);
    read(Some(&config), None)
}

/// Of two pictures twice as wide as high or twice as high as wide.
#[test]
fn pictures_become_what_transformers_and_timm_make_of_them() {
    let expected = load("processed.safetensors");
    let settings = settings();
    let models = ["hugging_face", "timm"].into_iter().flat_map(|library| {
        settings[library]
            .as_object()
            .unwrap()
            .iter()
            .map(move |(name, json)| {
                let model = match library {
                    "timm" => timm(&json.to_string()),
                    _ => read(None, Some(&json.to_string())),
                };
                (name, model.unwrap())
            })
    });
    let mut cases = 0;
    for (name, model) in models {
        for shape in ["wide", "high"] {
            let folder = folder("1.png", &picture(&format!("{shape}.png")));
            let (train, _) = image_folder(&folder.0, &model.input).unwrap();
            let got = first(&train);
            let level = 1.0 / 255.0 / model.input.std[0].min(model.input.std[1]);
            let (largest, _) = differences(&got, &expected[&format!("{name}.{shape}")]);
            println!("{name}, {shape}: {} levels", largest / level);
            assert!(
                largest <= 1.01 * level,
                "{name}, {shape}: {} levels",
                largest / level
            );
            cases += 1;
        }
    }
    assert_eq!(cases, 28);
}

#[test]
fn square_arrays_become_what_files_of_them_do() {
    let image = image::load_from_memory(&picture("rgb.bmp"))
        .unwrap()
        .into_rgb8();
    let plane = |channel: usize| image.pixels().map(move |pixel| pixel.0[channel]);
    let pixels: Vec<u8> = [0, 1, 2].into_iter().flat_map(plane).collect();
    let folder = folder("1.bmp", &picture("rgb.bmp"));
    for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
        for side in [7, 20, 31] {
            for resize in [
                Resize::Both(side),
                Resize::Both(side + 3),
                Resize::Shorter(side + 4),
            ] {
                let input = levels(side, Some(Fit { resize, filter }));
                let images = Images::new(pixels.clone(), vec![0], 1, 20, 255, input.clone());
                let (files, _) = image_folder(&folder.0, &input).unwrap();
                let (largest, _) = differences(&first(&images.unwrap()), &first(&files));
                assert!(largest <= 1.5, "{filter:?} {resize:?}: {largest} of 255");
            }
        }
    }
}

#[test]
fn a_merged_model_says_how_its_images_were_made() {
    let settings = settings();
    for name in [
        "bilinear",
        "bicubic",
        "larger",
        "shorter",
        "shorter_bicubic",
    ] {
        let json = &settings["hugging_face"][name];
        let model = read(None, Some(&json.to_string())).unwrap();
        assert_eq!(&merged(&model, name).0, json, "{name}");
    }
    // Where the model does not say, the data does.
    let silent = read(None, None).unwrap();
    assert_eq!(silent.input.fit, None);
    let folder = folder("1.png", &picture("wide.png"));
    let (_, test) = image_folder(&folder.0, &silent.input).unwrap();
    let used = PretrainedVit {
        input: test.input().unwrap().clone(),
        ..silent
    };
    let (json, again) = merged(&used, "folder");
    assert_eq!(json["size"], serde_json::json!({ "shortest_edge": 14 }));
    assert_eq!(
        json["crop_size"],
        serde_json::json!({ "height": 12, "width": 12 })
    );
    assert_eq!(again.input, used.input);
}

/// The preprocessor's file of a merged model, and the model read back.
fn merged(model: &PretrainedVit, name: &str) -> (serde_json::Value, PretrainedVit) {
    let lora = Lora::new(2, 2.0).unwrap();
    let head = Head::new(7, model.config.hidden_size, 1);
    let adapters = Adapters::new(&model.config.spec(), lora, head, 1);
    let folder = Folder::new(&format!("merged-{name}"));
    model.save_merged(&folder.0, Some(lora), &adapters).unwrap();
    let text = std::fs::read_to_string(folder.0.join("preprocessor_config.json")).unwrap();
    let again = PretrainedVit::open(&folder.0.join("model.safetensors"), None).unwrap();
    (serde_json::from_str(&text).unwrap(), again)
}

#[test]
fn what_cannot_be_done_to_images_is_refused_by_its_name() {
    let of = r#""image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]"#;
    for (settings, message) in [
        (r#""do_resize": false"#, "do_resize must be true, got false"),
        (r#""do_pad": true"#, "do_pad is true"),
        (r#""crop_pct": 0.9"#, "crop_pct is 0.9"),
        (
            r#""resample": 0"#,
            "resample must be 1 (Lanczos), 2 (bilinear) or 3 (bicubic), got 0",
        ),
        (r#""size": 224"#, "size must be the model's 12 by 12 pixels"),
        (
            r#""size": {"height": 12, "width": 24}"#,
            r#"got {"height":12,"width":24}"#,
        ),
        (r#""size": {"shortest_edge": 12}"#, "without do_center_crop"),
        (
            r#""size": {"shortest_edge": 12, "longest_edge": 20}"#,
            "size must be a number",
        ),
        (r#""size": 0"#, "size must be a number from 1 to 65536"),
        (
            r#""size": 14, "do_center_crop": true, "crop_size": 13"#,
            "crop_size must be the model's 12",
        ),
        (
            r#""size": 8, "do_center_crop": true"#,
            "size must be at least crop_size, 12",
        ),
        (
            r#""rescale_factor": 0"#,
            "rescale_factor must be a number above 0, got 0",
        ),
        (
            r#""do_rescale": 1"#,
            "do_rescale must be true or false, got 1",
        ),
        (
            r#""image_processor_type": "PoolFormerImageProcessor""#,
            "got PoolFormer",
        ),
    ] {
        let error = read(None, Some(&format!("{{{settings}, {of}}}"))).unwrap_err();
        assert!(error.contains("preprocessor_config.json: "), "{error}");
        assert!(error.contains(message), "{error} lacks {message}");
    }
    let of = r#""mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]"#;
    for (settings, message) in [
        (
            r#""crop_pct": 1.1"#,
            "crop_pct must be above 0 and at most 1, got 1.1",
        ),
        (r#""crop_pct": "most""#, "crop_pct must be above 0"),
        (r#""crop_pct": 1e-9"#, "asks for more than 65536 pixels"),
        (
            r#""interpolation": "random""#,
            "interpolation must be lanczos, bilinear or bicubic, got random",
        ),
        (
            r#""crop_mode": "border""#,
            "crop_mode must be center or squash, got border",
        ),
    ] {
        let error = timm(&format!("{{{settings}, {of}}}")).unwrap_err();
        assert!(error.contains(message), "{error} lacks {message}");
    }
    let names = r#"{"feature_extractor_type": "ViTFeatureExtractor", "size": 12, "do_pad": false,
        "pad_size": null, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}"#;
    assert_eq!(
        read(None, Some(names)).unwrap().input.fit,
        Some(Fit::whole(12))
    );
}

/// A class with a picture, and a test set that is called `val`.
fn pets() -> Folder {
    let folder = Folder::new("entries");
    for name in ["train/cat/1.png", "train/dog/1.png", "val/cat/1.png"] {
        folder.write(name, &picture("wide.png"));
    }
    folder
}

fn open(folder: &Folder) -> sft_core::Result<(ImageFiles, ImageFiles)> {
    image_folder(&folder.0, &levels(12, None))
}

#[test]
fn what_is_neither_class_nor_image_is_skipped_and_told() {
    let folder = pets();
    for (name, bytes) in [
        (
            "train/.ipynb_checkpoints/1-checkpoint.png",
            picture("wide.png"),
        ),
        ("train/__MACOSX/cat/._1.png", vec![0, 5, 22, 7]),
        ("train/.DS_Store", vec![0]),
        ("train/labels.csv", vec![0]),
        ("train/cat/._1.png", vec![0, 5, 22, 7]),
        ("train/cat/.hidden.jpg", picture("rgb.jpg")),
        ("train/cat/.ipynb_checkpoints/1.png", picture("wide.png")),
        ("train/cat/Thumbs.db", b"\xd0\xcf\x11\xe0".to_vec()),
        ("train/cat/desktop.ini", b"BM is no bitmap here".to_vec()),
        ("train/dog/more/1.png", picture("wide.png")),
        ("val/.git/config", vec![0]),
    ] {
        folder.write(name, &bytes);
    }
    let (train, test) = open(&folder).unwrap();
    assert_eq!((train.len(), train.classes(), test.len()), (2, 2, 1));
    let found = train.found();
    assert_eq!(
        (found.images, found.classes, found.skipped.len()),
        (2, 2, 10)
    );
    let told = train.told().unwrap();
    assert!(told.starts_with("2 images of 2 classes in "), "{told}");
    assert!(
        told.contains("10 entries skipped: .DS_Store, .ipynb_checkpoints, "),
        "{told}"
    );
    let found = test.found();
    assert_eq!(
        (found.images, found.classes, found.skipped.len()),
        (1, 1, 1)
    );
    assert!(found.folder.ends_with("val"), "{}", found.folder.display());
}

#[test]
fn pictures_that_cannot_be_read_are_never_skipped() {
    for (name, message) in [
        (
            "2.heic",
            "2.heic: a picture of a format that is not read: expected BMP, GIF",
        ),
        ("2.AVIF", "2.AVIF: a picture of a format that is not read"),
        ("2.svg", "2.svg: a picture of a format that is not read"),
        ("2.ico", "2.ico: a picture of a format that is not read"),
    ] {
        let folder = pets();
        folder.write(&format!("train/cat/{name}"), b"x");
        let error = open(&folder).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let folder = pets();
    std::fs::remove_file(folder.0.join("val/cat/1.png")).unwrap();
    let error = open(&folder).unwrap_err().to_string();
    assert!(error.contains("val/cat: no image of the class"), "{error}");
    std::fs::remove_dir(folder.0.join("val/cat")).unwrap();
    let error = open(&folder).unwrap_err().to_string();
    assert!(error.contains("val: no folder of a class"), "{error}");
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    use std::os::unix::{fs::symlink, net::UnixListener};
    let folder = pets();
    let socket = folder.0.join("train/cat/p.png");
    let _held = UnixListener::bind(&socket).unwrap();
    let error = open(&folder).unwrap_err().to_string();
    assert!(
        error.contains("train/cat/p.png: is no regular file"),
        "{error}"
    );
    std::fs::remove_file(&socket).unwrap();

    let made = std::process::Command::new("mkfifo").arg(&socket).status();
    if made.is_ok_and(|status| status.success()) {
        let error = open(&folder).unwrap_err().to_string();
        assert!(
            error.contains("train/cat/p.png: is no regular file"),
            "{error}"
        );
        std::fs::remove_file(&socket).unwrap();
    }

    symlink("nowhere.png", &socket).unwrap();
    let error = open(&folder).unwrap_err().to_string();
    assert!(error.contains("train/cat/p.png: "), "{error}");
    std::fs::remove_file(&socket).unwrap();

    symlink("..", folder.0.join("train/cat/loop")).unwrap();
    symlink("self", folder.0.join("train/self")).unwrap();
    symlink("self", folder.0.join("train/cat/self")).unwrap();
    symlink("1.png", folder.0.join("train/cat/2.png")).unwrap();
    let (train, _) = open(&folder).unwrap();
    let skipped = train.found().skipped.len();
    assert_eq!((train.len(), train.classes(), skipped), (3, 2, 3));
}

#[test]
fn tiny_imagenet_tells_what_it_skips() {
    let folder = Folder::new("tiny-skipped");
    let png = {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let image = image::RgbImage::new(64, 64);
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    };
    folder.write("wnids.txt", b"n01\n");
    folder.write("train/n01/images/1.JPEG", &png);
    folder.write("train/n01/images/._1.JPEG", b"x");
    folder.write("val/images/1.JPEG", &png);
    folder.write("val/val_annotations.txt", b"1.JPEG\tn01\t0\n");
    let (train, val) = tiny_imagenet(&folder.0, &levels(32, None)).unwrap();
    let of = |set: &ImageFiles| {
        let found = set.found();
        (found.images, found.classes, found.skipped.len())
    };
    assert_eq!((of(&train), of(&val)), ((1, 1, 1), (1, 1, 0)));
    assert_eq!(train.input().unwrap().fit, Some(Fit::whole(32)));
}

/// A picture of extreme sides, whose resized form would take gigabytes.
#[test]
fn of_a_long_picture_only_what_is_cut_out_is_resized() {
    for (width, height) in [(1, 65_535), (65_535, 1), (2, 40_000)] {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let image = image::RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([(x / 256) as u8, (y / 256) as u8, 7])
        });
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        let folder = folder("1.png", &bytes.into_inner());
        let (train, _) = image_folder(&folder.0, &levels(224, None)).unwrap();
        let middle = (width.max(height) / 2 / 256) as f32;
        let want = if width > height {
            [middle, 0.0, 7.0]
        } else {
            [0.0, middle, 7.0]
        };
        let augmented = train.clone().with_augmentation(Some(Augment::default()));
        augmented.training_batch(&[0], 1).unwrap();
        for (channel, want) in want.into_iter().enumerate() {
            let plane = first(&train).get(channel).unwrap();
            let plane = plane.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for value in [plane[0], plane[224 * 112], plane[224 * 224 - 1]] {
                assert!(
                    (value - want).abs() <= 1.01,
                    "{width}x{height}: {value} {want}"
                );
            }
        }
    }
}

/// Files of a few bytes that declare gigabytes.
#[test]
fn pictures_that_declare_too_much_are_refused() {
    let sides = 60_000u32.to_be_bytes();
    let mut png = picture("wide.png");
    png[16..20].copy_from_slice(&sides);
    png[20..24].copy_from_slice(&sides);
    let mut bmp = picture("rgb.bmp");
    bmp[18..22].copy_from_slice(&60_000u32.to_le_bytes());
    bmp[22..26].copy_from_slice(&60_000u32.to_le_bytes());
    let mut jpeg = picture("rgb.jpg");
    let frame = jpeg
        .windows(2)
        .position(|pair| pair == [0xff, 0xc0])
        .unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xf0, 0xff, 0xf0]);
    let mut gif = picture("palette.gif");
    gif[6..10].copy_from_slice(&[0xff; 4]);
    let pnm = b"P6 60000 60000 255\n".to_vec();
    for (name, bytes) in [
        ("1.png", png),
        ("1.bmp", bmp),
        ("1.jpg", jpeg),
        ("1.gif", gif),
        ("1.ppm", pnm),
        ("2.ppm", b"P6 0 5 255\n".to_vec()),
    ] {
        let folder = folder(name, &bytes);
        let (train, _) = image_folder(&folder.0, &levels(12, None)).unwrap();
        let error = train.batch(&[0]).map(|_| ()).unwrap_err().to_string();
        println!("{error}");
        assert!(error.contains(&format!("train/class/{name}: ")), "{error}");
    }
}

#[test]
fn images_and_inputs_of_no_size_are_refused() {
    let error = |side: usize, full: u8, input: ImageInput| {
        let images = Images::new(Vec::new(), Vec::new(), 2, side, full, input);
        images.unwrap_err().to_string()
    };
    assert_eq!(
        error(0, 255, levels(4, None)),
        "side must be at least 1 pixel, got 0"
    );
    assert_eq!(
        error(4, 0, levels(4, None)),
        "full must be at least 1, got 0"
    );
    assert_eq!(
        error(4, 255, levels(0, None)),
        "input.side must be at least 1 pixel, got 0"
    );
    let input = ImageInput {
        std: vec![1.0; 2],
        ..levels(4, None)
    };
    let wrong = error(4, 255, input);
    assert_eq!(
        wrong,
        "input.mean and std must be of one length above 0, got 3 and 2"
    );
    let wrong = error(4, 255, levels(4, Some(Fit::whole(3))));
    assert_eq!(
        wrong,
        "input.fit.resize must be at least the 4 pixels of the model, got 3"
    );
    let huge = Images::new(
        Vec::new(),
        vec![0; 3],
        2,
        usize::MAX / 2,
        255,
        levels(4, None),
    );
    assert!(huge.unwrap_err().to_string().starts_with("pixels must be "));
}
