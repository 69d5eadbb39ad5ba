//! Random changes of training images.

use rand::RngExt;

use crate::seed;

/// Random changes of training images, drawn anew in every epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augment {
    /// Whether half of the images are mirrored left to right.
    pub flip: bool,
    /// What is added on every side before a crop of the old size, as a fraction of the side.
    pub padding: f64,
}

impl Default for Augment {
    /// What is usual for CIFAR and Tiny-ImageNet: flips, and crops of images padded by an eighth.
    fn default() -> Self {
        Self {
            flip: true,
            padding: 0.125,
        }
    }
}

/// One image's change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    /// Where the crop starts, in 0 to twice the padding, pixels.
    pub(super) left: usize,
    pub(super) top: usize,
    pub(super) mirrored: bool,
    /// A number that no other change of the image has.
    pub(super) view: u64,
}

impl Augment {
    /// The change of the image with this index: a function of it and the seed alone. A crop may
    /// start anywhere from 0 to `slack`, each way.
    pub(super) fn draw(self, seed: u64, index: usize, slack: [usize; 2]) -> Change {
        let mut rng = seed::rng(seed, &[index as u64]);
        let (left, top) = (
            rng.random_range(0..=slack[0]),
            rng.random_range(0..=slack[1]),
        );
        let mirrored = self.flip && rng.random();
        let corner = top as u64 * (slack[0] as u64 + 1) + left as u64;
        Change {
            left,
            top,
            mirrored,
            view: 2 * corner + u64::from(mirrored),
        }
    }

    /// The padding of an image of this side, pixels.
    pub(super) fn pixels(self, side: usize) -> usize {
        (self.padding * side as f64).round() as usize
    }
}

/// A square plane padded by `padding` black pixels and cropped to its old size.
pub(super) fn crop(plane: &[u8], side: usize, padding: usize, change: Change) -> Vec<u8> {
    let mut out = vec![0; side * side];
    for (y, row) in out.chunks_exact_mut(side).enumerate() {
        let Some(from) = (y + change.top).checked_sub(padding).filter(|&y| y < side) else {
            continue;
        };
        for (x, value) in row.iter_mut().enumerate() {
            let x = if change.mirrored { side - 1 - x } else { x };
            if let Some(x) = (x + change.left).checked_sub(padding).filter(|&x| x < side) {
                *value = plane[from * side + x];
            }
        }
    }
    out
}
