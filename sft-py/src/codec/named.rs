use sft_compress::{NonFinite, Quantize};

use super::Codec;
use crate::config::{RANGES, name_of};

impl Codec {
    /// The named constructor for these settings, if there is one, and its arguments.
    pub(super) fn named(&self) -> Option<(&'static str, String)> {
        if self.0 == sft_compress::Codec::raw() {
            return Some(("raw", String::new()));
        }
        let (constructor, mut arguments) = self.dead_zone_arguments().or_else(|| self.top_k())?;
        if self.0.config().non_finite == NonFinite::Saturate {
            arguments += ", non_finite='saturate'";
        }
        Some((constructor, arguments))
    }

    fn dead_zone_arguments(&self) -> Option<(&'static str, String)> {
        let Quantize::DeadZone { step } = self.0.config().quantize else {
            return None;
        };
        let same = self.is(sft_compress::Codec::dead_zone(step));
        same.then(|| ("dead_zone", format!("{step:?}")))
    }

    fn top_k(&self) -> Option<(&'static str, String)> {
        let (keep, levels, range) = (self.0.keep(), self.0.levels()?, self.0.range()?);
        let named = [
            ("paper", sft_compress::Codec::paper(keep, levels)),
            ("activation", sft_compress::Codec::activation(keep, levels)),
            ("gradient", sft_compress::Codec::gradient(keep, levels)),
        ];
        let found = named
            .into_iter()
            .filter_map(|(name, codec)| Some((name, codec.ok()?)));
        // The constructor that needs no range comes first.
        let mut found: Vec<_> = found
            .filter(|(_, codec)| self.is(Ok(codec.with_range(range))))
            .collect();
        found.sort_by_key(|(_, codec)| codec.range() != Some(range));
        let (name, codec) = found.first()?;
        let suffix = if codec.range() == Some(range) {
            String::new()
        } else {
            format!(", range='{}'", name_of(&range, RANGES))
        };
        let arguments = format!("keep={keep:?}, levels={levels}{suffix}");
        Some((name, arguments))
    }

    /// Whether this is the other codec but for NaN and infinities.
    fn is(&self, other: sft_compress::Result<sft_compress::Codec>) -> bool {
        let treatment = self.0.config().non_finite;
        other.is_ok_and(|other| other.with_non_finite(treatment) == self.0)
    }
}
