//! What a text model costs, for the cost model.

use sft_opt::Transformer;
use sft_opt::system::{Counts, Part};

use super::TextConfig;

impl TextConfig {
    /// The same sizes for the cost model, with adapters of `rank` on every linear of the blocks, a
    /// head of `classes` on one vector a sample, or without classes the frozen one of a language model on
    /// all `tokens` of a sample.
    pub fn transformer(&self, classes: usize, rank: usize, tokens: usize) -> Transformer {
        let counts = Counts {
            block: self.block_part(rank, tokens),
            embedding: Part {
                parameters: self.embedding_parameters(),
                ..Part::default()
            },
            head: if classes == 0 {
                self.language_head_part(tokens)
            } else {
                self.head_part(classes)
            },
        };
        let mut model = Transformer::counted(self.depth, tokens, self.width, self.heads, counts);
        model.classes = classes.max(1);
        model
    }

    /// A frozen block: the backward pass has no gradients of weights, but those of the adapters.
    fn block_part(&self, rank: usize, tokens: usize) -> Part {
        let (linears, tokens) = (self.linears(), tokens as u64);
        let sizes = linears
            .iter()
            .map(|&(_, outputs, inputs)| (outputs as u64, inputs as u64));
        let weights: u64 = sizes
            .clone()
            .map(|(outputs, inputs)| outputs * inputs)
            .sum();
        let lora: u64 = sizes.map(|(outputs, inputs)| outputs + inputs).sum();
        let lora = rank as u64 * lora;
        // Scores, and the values that they weigh.
        let pairs = if self.family.is_decoder() {
            tokens * (tokens + 1) / 2
        } else {
            tokens * tokens
        };
        let attention = 4 * pairs * (self.heads * self.head_width) as u64;
        let (linear, adapters) = (2 * tokens * weights, 2 * tokens * lora);
        let mut parameters = Vec::new();
        self.block_parameters(0, &mut parameters);
        Part {
            parameters: count(&parameters),
            lora_parameters: lora,
            forward_flop: linear + attention + adapters,
            backward_flop: linear + 2 * (attention + adapters),
        }
    }

    fn embedding_parameters(&self) -> u64 {
        let mut blocks = Vec::new();
        (0..self.depth).for_each(|index| self.block_parameters(index, &mut blocks));
        count(&self.parameters()) - count(&blocks) - count(&self.pooler_parameters())
    }

    /// The trained head, which a bias belongs to where the family's have one. What is frozen on the
    /// server is left out.
    fn head_part(&self, classes: usize) -> Part {
        let weights = (self.width * classes) as u64;
        Part {
            parameters: weights
                + if self.family.is_decoder() {
                    0
                } else {
                    classes as u64
                },
            forward_flop: 2 * weights,
            backward_flop: 4 * weights,
            ..Part::default()
        }
    }

    /// The frozen head over the vocabulary; where it is the embedding, that counts its parameters.
    fn language_head_part(&self, tokens: usize) -> Part {
        let weights = (self.width * self.vocabulary) as u64;
        let flop = 2 * weights * tokens as u64;
        Part {
            parameters: if self.tied_head { 0 } else { weights },
            forward_flop: flop,
            backward_flop: flop,
            ..Part::default()
        }
    }
}

/// How many numbers parameters of these shapes have.
fn count(parameters: &[(String, Vec<usize>)]) -> u64 {
    let sizes = parameters
        .iter()
        .map(|(_, shape)| shape.iter().product::<usize>() as u64);
    sizes.sum()
}
