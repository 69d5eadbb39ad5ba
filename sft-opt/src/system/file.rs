//! A system as it stands in JSON, TOML or any other format of serde.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Counts, Device, Qkv, Server, System, Training, Transformer};

/// The fields of a system in a file. What is missing has its default; unknown keys are refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SystemFile {
    total_hz: f64,
    #[serde(default)]
    model: ModelFile,
    #[serde(default)]
    training: Training,
    #[serde(default)]
    server: Server,
    devices: Vec<Device>,
}

/// A model by name, by shape, or by what its parts count; ViT-Base with 100 classes if nothing is
/// said.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "ModelFields")]
struct ModelFile(Transformer);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ModelFields {
    preset: Option<Vit>,
    blocks: Option<usize>,
    width: Option<usize>,
    mlp_width: Option<usize>,
    heads: Option<usize>,
    tokens: Option<usize>,
    patch: Option<usize>,
    channels: Option<usize>,
    image: Option<usize>,
    classes: Option<usize>,
    lora_rank: Option<usize>,
    qkv: Option<Qkv>,
    counts: Option<Counts>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Vit {
    #[serde(rename = "vit_tiny")]
    Tiny,
    #[serde(rename = "vit_small")]
    Small,
    #[serde(rename = "vit_base")]
    Base,
    #[serde(rename = "vit_large")]
    Large,
}

/// Classes of a model that does not tell them: those of CIFAR-100.
const CLASSES: usize = 100;

impl Default for ModelFile {
    fn default() -> Self {
        Self(Transformer::vit_base(CLASSES))
    }
}

impl TryFrom<ModelFields> for ModelFile {
    type Error = String;

    fn try_from(fields: ModelFields) -> Result<Self, String> {
        let model = match (fields.shape(), fields.counts) {
            (false, _) => fields.named(),
            (true, Some(counts)) if fields.mlp_width.is_none() => fields.counted(counts)?,
            (true, _) => fields.shaped()?,
        };
        Ok(Self(model))
    }
}

impl ModelFields {
    /// Whether anything is said of the shape.
    fn shape(&self) -> bool {
        let sizes = [
            self.blocks,
            self.width,
            self.mlp_width,
            self.heads,
            self.tokens,
        ];
        let image = [self.patch, self.channels, self.image];
        self.counts.is_some() || sizes.iter().chain(&image).any(Option::is_some)
    }

    fn named(&self) -> Transformer {
        let make = match self.preset.unwrap_or(Vit::Base) {
            Vit::Tiny => Transformer::vit_tiny,
            Vit::Small => Transformer::vit_small,
            Vit::Base => Transformer::vit_base,
            Vit::Large => Transformer::vit_large,
        };
        self.adapted(make(self.classes.unwrap_or(CLASSES)))
    }

    fn counted(&self, counts: Counts) -> Result<Transformer, String> {
        self.no_preset()?;
        let mut model = Transformer::counted(
            need(self.blocks, "blocks")?,
            need(self.tokens, "tokens")?,
            need(self.width, "width")?,
            need(self.heads, "heads")?,
            counts,
        );
        model.patch = self.patch.unwrap_or(model.patch);
        model.channels = self.channels.unwrap_or(model.channels);
        model.image = self.image.unwrap_or(model.image);
        model.classes = self.classes.unwrap_or(model.classes);
        Ok(self.adapted(model))
    }

    fn shaped(&self) -> Result<Transformer, String> {
        self.no_preset()?;
        let blocks = need(self.blocks, "blocks")?;
        let width = need(self.width, "width")?;
        let heads = need(self.heads, "heads")?;
        let mut model = Transformer::vit(blocks, width, heads, self.classes.unwrap_or(CLASSES));
        model.mlp_width = need(self.mlp_width, "mlp_width")?;
        model.tokens = need(self.tokens, "tokens")?;
        model.patch = need(self.patch, "patch")?;
        model.channels = need(self.channels, "channels")?;
        model.image = need(self.image, "image")?;
        model.counts = self.counts;
        Ok(self.adapted(model))
    }

    fn adapted(&self, model: Transformer) -> Transformer {
        let (rank, qkv) = (model.lora_rank, model.qkv);
        model.with_lora(self.lora_rank.unwrap_or(rank), self.qkv.unwrap_or(qkv))
    }

    fn no_preset(&self) -> Result<(), String> {
        let given = "preset stands for a whole shape: give either of them";
        self.preset.map_or(Ok(()), |_| Err(given.into()))
    }
}

fn need(value: Option<usize>, field: &str) -> Result<usize, String> {
    value.ok_or_else(|| {
        format!(
            "missing field `{field}`: a shape has blocks, width, mlp_width, heads, tokens, patch, \
             channels and image; counts go with blocks, tokens, width and heads"
        )
    })
}

impl<'de> Deserialize<'de> for System {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let file = SystemFile::deserialize(from)?;
        let (model, devices) = (file.model.0, file.devices);
        Self::new(model, file.training, file.server, devices, file.total_hz)
            .map_err(de::Error::custom)
    }
}

impl Serialize for System {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let file = SystemFile {
            total_hz: self.total_hz(),
            model: ModelFile(*self.model()),
            training: *self.training(),
            server: *self.server(),
            devices: self.devices().to_vec(),
        };
        file.serialize(to)
    }
}
