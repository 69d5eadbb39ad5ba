//! The average of the products of adapters, at one rank or another.

use std::borrow::Cow;

use nalgebra::DMatrix;
use rayon::prelude::*;

use super::aggregate::means;
use crate::adapter::{AdaptedLayer, Adapters, Head, Lora, ModelSpec, adapted_layers};

/// What a product average is, and what it cost.
#[derive(Clone, Debug, PartialEq)]
pub struct ProductAverage {
    /// The adapters, of the wanted rank.
    pub adapters: Adapters,
    /// The energy of the average of the products that is not in those of the adapters, over that
    /// of all: 0 where the rank suffices.
    pub lost: f64,
}

/// The average of the products `s B A` weighted by numbers of samples, at the rank of `lora`, whatever the
/// ranks of those averaged; a head that is trained in full is averaged as it is.
///
/// The average has a rank of up to the sum of all ranks. Where that is more than `lora` has, what is kept is
/// the nearest of its rank: the largest singular values (Eckart-Young; Bai et al., "Federated Fine-tuning of
/// Large Language Models under Heterogeneous Tasks and Client Resources", 2024, `FlexLoRA`). Of the many `A`
/// with that product it is the one nearest to that of `before`, which has the rank of `lora`, with its
/// directions that the product does not need, so that differences of adapters from round to round stay small.
/// The scale alpha / r must be that of `lora` for all.
///
/// # Panics
/// If there are none, or they do not fit the model.
pub fn average_products(
    spec: &ModelSpec,
    lora: Lora,
    before: &Adapters,
    all: &[(&Adapters, Lora, usize)],
) -> ProductAverage {
    let total: usize = all.iter().map(|(_, _, samples)| samples).sum();
    let layers = |(adapters, lora, samples): &(&'_ Adapters, Lora, usize)| {
        (
            layers(spec, *lora, adapters),
            *samples as f64 / total as f64,
        )
    };
    let all_layers: Vec<_> = all.iter().map(layers).collect();
    let before = self::layers(spec, lora, before);
    let factors = before.par_iter().enumerate().map(|(i, before)| {
        let terms = all_layers
            .iter()
            .map(|(layers, share)| (&layers[i], *share));
        factor(&terms.collect::<Vec<_>>(), before.rank, &before.a)
    });
    let factors: Vec<_> = factors.collect();
    let heads: Vec<_> = (all.iter())
        .map(|(adapters, _, samples)| (adapters.head.trained(), *samples))
        .collect();
    let head = &all[0].0.head;
    let head = match head.adapter.as_slice() {
        [] => head.with_trained(means(&heads)),
        _ => head.clone(),
    };
    let values = factors.iter().flat_map(|factors| &factors.values).copied();
    let adapters = of_layers(spec, lora, &head, values);
    let sum = |of: fn(&Factors) -> f64| factors.iter().map(of).sum::<f64>();
    let (lost, energy) = (sum(|factors| factors.lost), sum(|factors| factors.energy));
    ProductAverage {
        adapters,
        lost: if energy > 0.0 { lost / energy } else { 0.0 },
    }
}

/// Adapters at another rank of the same scale: the nearest by their products, the same where the rank is.
///
/// Their `A` is near to the first rows of those of `all`, which has the largest rank, with the
/// directions of these that the products do not need.
pub(super) fn at_rank<'a>(
    spec: &ModelSpec,
    (adapters, from): (&'a Adapters, Lora),
    to: Lora,
    (all, largest): (&Adapters, Lora),
) -> Cow<'a, Adapters> {
    if from.rank() == to.rank() {
        return Cow::Borrowed(adapters);
    }
    let before = first_rows(spec, all, largest, to);
    Cow::Owned(average_products(spec, to, &before, &[(adapters, from, 1)]).adapters)
}

/// The first rows of every `A`, with `B` zero.
fn first_rows(spec: &ModelSpec, adapters: &Adapters, from: Lora, to: Lora) -> Adapters {
    let rows = |adapted: AdaptedLayer<'_>| {
        let (rank, sizes) = (to.rank(), [adapted.layer.inputs, adapted.layer.outputs]);
        let mut values = adapted.a[..rank * sizes[0]].to_vec();
        values.resize(rank * (sizes[0] + sizes[1]), 0.0);
        values
    };
    let layers = adapted_layers(spec, from, adapters).into_iter();
    of_layers(spec, to, &adapters.head, layers.flat_map(rows))
}

/// Adapters of the values of all layers, one after the other, over a head.
fn of_layers(
    spec: &ModelSpec,
    lora: Lora,
    head: &Head,
    mut values: impl Iterator<Item = f32>,
) -> Adapters {
    let mut vector = |length: usize| values.by_ref().take(length).collect::<Vec<f32>>();
    let embedding = vector(lora.embedding_parameters(spec));
    let block = |index| vector(lora.in_block(index).block_parameters(spec));
    let blocks = (0..spec.depth).map(block).collect();
    let adapter = values.collect();
    Adapters {
        embedding,
        blocks,
        head: Head {
            adapter,
            ..head.clone()
        },
    }
}

/// `A` `[r, inputs]` and `B` `[outputs, r]` of a layer.
struct Layer {
    rank: usize,
    a: DMatrix<f64>,
    b: DMatrix<f64>,
}

fn layers(spec: &ModelSpec, lora: Lora, adapters: &Adapters) -> Vec<Layer> {
    let matrix = |rows: usize, columns: usize, values: &[f32]| {
        DMatrix::from_row_iterator(rows, columns, values.iter().copied().map(f64::from))
    };
    let layer = |adapted: AdaptedLayer<'_>| Layer {
        rank: adapted.rank,
        a: matrix(adapted.rank, adapted.layer.inputs, adapted.a),
        b: matrix(adapted.layer.outputs, adapted.rank, adapted.b),
    };
    let all = adapted_layers(spec, lora, adapters);
    all.into_iter().map(layer).collect()
}

/// `A` then `B`, with the energies of what is not in their product and of all.
struct Factors {
    values: Vec<f32>,
    lost: f64,
    energy: f64,
}

/// Singular values below this share of the largest are rounding.
const NOISE: f64 = 1e-7;

/// The factors at a rank of a sum of products, `A` nearest to one of that rank.
///
/// The sum is `B A` of all `B` side by side, times their shares, and all `A` one below the other. With
/// `B = Q R` and `A^T = Q' R'` its singular values are those of the small `R R'^T = U S V^T`. Of the largest k,
/// `A' = c G V^T + (1 - G G^T) A0` and `B' = U S G^T / c` have the product `U S V^T` for every G with
/// orthonormal columns, `[r, k]`; the one nearest to `A0 V` is its polar factor.
fn factor(terms: &[(&Layer, f64)], rank: usize, before: &DMatrix<f64>) -> Factors {
    let (inputs, outputs) = (before.ncols(), terms[0].0.b.nrows());
    let sum: usize = terms.iter().map(|(layer, _)| layer.rank).sum();
    let mut b = DMatrix::zeros(outputs, sum);
    let mut a_transposed = DMatrix::zeros(inputs, sum);
    let mut from = 0;
    for (layer, share) in terms {
        b.columns_mut(from, layer.rank)
            .copy_from(&(&layer.b * *share));
        a_transposed
            .columns_mut(from, layer.rank)
            .copy_from(&layer.a.transpose());
        from += layer.rank;
    }
    let (b, a) = (b.qr(), a_transposed.qr());
    let small = (b.r() * a.r().transpose()).svd(true, true);
    let values = &small.singular_values;
    let (Some(u), Some(v)) = (&small.u, &small.v_t) else {
        unreachable!("both were asked for")
    };
    let largest = values.max();
    let kept = values.iter().take(rank);
    let kept = kept.take_while(|&&value| value > NOISE * largest).count();
    let left = b.q() * u.columns(0, kept);
    // `V^T`, [k, inputs].
    let right = v.rows(0, kept) * a.q().transpose();
    let turned = polar(before * right.transpose());
    let length = before.norm() / (rank as f64).sqrt();
    let c = if length > 0.0 { length } else { 1.0 };
    let stretched = DMatrix::from_fn(outputs, kept, |i, j| left[(i, j)] * values[j]);
    let rest = before - &turned * (turned.transpose() * before);
    let a = &turned * right * c + rest;
    let b = stretched * turned.transpose() / c;
    let energy = |values: &mut dyn Iterator<Item = &f64>| values.map(|value| value * value).sum();
    let rows = |matrix: &DMatrix<f64>| matrix.transpose().iter().map(|&x| x as f32).collect();
    let (a, b): (Vec<f32>, Vec<f32>) = (rows(&a), rows(&b));
    Factors {
        values: [a, b].concat(),
        lost: energy(&mut values.iter().skip(kept)),
        energy: energy(&mut values.iter()),
    }
}

/// The matrix with orthonormal columns that is nearest to one of at least as many rows as columns.
fn polar(matrix: DMatrix<f64>) -> DMatrix<f64> {
    if matrix.is_empty() {
        return matrix;
    }
    let svd = matrix.svd(true, true);
    let (Some(u), Some(v)) = (svd.u, svd.v_t) else {
        unreachable!("both were asked for")
    };
    u * v
}

#[cfg(test)]
mod tests {
    use super::super::fed_avg;
    use super::*;
    use crate::adapter::{LinearSpec, Path, Place, Targets, normal};
    use crate::seed;

    fn spec() -> ModelSpec {
        let linear = |name: &str, inputs, outputs| LinearSpec {
            path: Path::same(name),
            inputs,
            outputs,
            kernel: None,
        };
        ModelSpec {
            depth: 2,
            width: 12,
            tokens: 5,
            grid: None,
            causal: false,
            blocks: Path::same("layers"),
            block: vec![linear("q_proj", 12, 7), linear("up_proj", 12, 20)],
            fan_in_fan_out: false,
            embedding: vec![linear("projection", 9, 12)],
            head: Path::same("classifier"),
            head_bias: true,
            pooler: None,
        }
    }

    fn targets() -> Targets {
        Targets::ALL_LINEAR
            .with(Place::Embedding(0))
            .with(Place::Head)
    }

    fn lora(rank: usize) -> Lora {
        Lora::new(rank, 1.5 * rank as f64)
            .unwrap()
            .with_targets(targets())
    }

    /// Adapters of which every value is random.
    fn random(lora: Lora, seed: u64) -> Adapters {
        let start = Adapters::new(&spec(), lora, Head::new(3, 12, 1), 1);
        let mut rng = seed::rng(seed, &[]);
        let mut vector = |length: usize| (0..length).map(|_| normal(&mut rng) as f32).collect();
        let vectors = start.lengths().into_iter().map(&mut vector).collect();
        start.with_vectors(vectors)
    }

    /// The average of the products of every layer, element by element.
    fn dense(all: &[(&Adapters, Lora, usize)]) -> Vec<DMatrix<f64>> {
        let total: usize = all.iter().map(|(_, _, samples)| samples).sum();
        let spec = spec();
        let layers: Vec<_> = all
            .iter()
            .map(|(a, lora, _)| adapted_layers(&spec, *lora, a))
            .collect();
        let average = |n: usize| {
            let layer = &layers[0][n].layer;
            DMatrix::from_fn(layer.outputs, layer.inputs, |i, j| {
                let of = |(layers, (_, _, samples)): (&Vec<AdaptedLayer<'_>>, &(_, _, usize))| {
                    let AdaptedLayer {
                        rank, a, b, scale, ..
                    } = layers[n];
                    let product: f64 = (0..rank)
                        .map(|k| f64::from(b[i * rank + k]) * f64::from(a[k * layer.inputs + j]))
                        .sum();
                    *samples as f64 / total as f64 * scale * product
                };
                layers.iter().zip(all).map(of).sum()
            })
        };
        (0..layers[0].len()).map(average).collect()
    }

    fn largest(matrix: &DMatrix<f64>) -> f64 {
        matrix.iter().fold(0.0, |most: f64, x| most.max(x.abs()))
    }

    /// Where the rank suffices, the products of the result are the average of the products.
    #[test]
    fn the_average_of_products_is_met_where_the_rank_suffices() {
        let (two, three) = (random(lora(2), 1), random(lora(3), 2));
        let all = [(&two, lora(2), 5), (&three, lora(3), 11)];
        for rank in [5, 6] {
            let before = random(lora(rank), 3);
            let average = average_products(&spec(), lora(rank), &before, &all);
            assert!(average.lost < 1e-12, "{}", average.lost);
            let got = dense(&[(&average.adapters, lora(rank), 1)]);
            for (got, want) in got.iter().zip(dense(&all)) {
                let error = largest(&(got - &want)) / largest(&want);
                assert!(error < 1e-5, "{rank}: {error:e}");
            }
        }
        let apart = fed_avg([(&two, 1), (&random(lora(2), 4), 1)].into_iter());
        let all = [(&two, lora(2), 1), (&random(lora(2), 4), lora(2), 1)];
        let far = &dense(&[(&apart, lora(2), 1)])[1] - &dense(&all)[1];
        assert!(largest(&far) > 0.1, "FedAvg of A and B is another average");
    }

    /// Where it does not, what is lost is what the best approximation loses, by a dense SVD.
    #[test]
    fn a_smaller_rank_keeps_the_largest_singular_values() {
        let (two, four) = (random(lora(2), 1), random(lora(4), 2));
        let all = [(&two, lora(2), 3), (&four, lora(4), 4)];
        let average = average_products(&spec(), lora(3), &random(lora(3), 3), &all);
        let got = dense(&[(&average.adapters, lora(3), 1)]);
        let (mut lost, mut energy) = (0.0, 0.0);
        for (got, want) in got.iter().zip(dense(&all)) {
            let values = want.clone().svd(false, false).singular_values;
            let best: f64 = values.iter().skip(3).map(|value| value * value).sum();
            let error = (got - &want).norm_squared();
            // A head of three classes has no more than the rank: there it is all kept.
            let bound = 1e-6 * want.norm_squared();
            assert!((error - best).abs() < bound, "{error} {best}");
            lost += best;
            energy += want.norm_squared();
        }
        assert!((average.lost - lost / energy).abs() < 1e-9 && average.lost > 0.01);
    }

    /// What is averaged with itself, or with new adapters, keeps its factors but for rounding.
    #[test]
    fn the_factors_stay_near_to_those_before() {
        let new = Adapters::new(&spec(), lora(4), Head::new(3, 12, 1), 7);
        let same = average_products(&spec(), lora(4), &new, &[(&new, lora(4), 1)]);
        assert_eq!(same.adapters, new, "a product of zero changes no A");
        let mut tuned = new.clone();
        let mut rng = seed::rng(9, &[]);
        let vectors =
            (tuned.blocks.iter_mut()).chain([&mut tuned.embedding, &mut tuned.head.adapter]);
        for value in vectors.flatten() {
            *value += (0.01 * normal(&mut rng)) as f32;
        }
        let all = [(&tuned, lora(4), 1)];
        let once = average_products(&spec(), lora(4), &new, &all).adapters;
        let again = average_products(&spec(), lora(4), &once, &[(&once, lora(4), 1)]).adapters;
        let far = |a: &Adapters, b: &Adapters| {
            let pairs = a.blocks.iter().flatten().zip(b.blocks.iter().flatten());
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        assert!(far(&once, &again) < 1e-5, "{}", far(&once, &again));
    }

    #[test]
    fn a_larger_rank_and_back_changes_no_product() {
        let two = random(lora(2), 1);
        let all = random(lora(6), 8);
        let at = |adapters, to| at_rank(&spec(), adapters, to, (&all, lora(6))).into_owned();
        let five = at((&two, lora(2)), lora(5));
        let back = at((&five, lora(5)), lora(2));
        // What the product does not need can be learnt.
        let rows = adapted_layers(&spec(), lora(5), &five).into_iter();
        let mut rows = rows.flat_map(|layer| layer.a.chunks(layer.layer.inputs));
        assert!(rows.all(|row| row.iter().any(|value| value.abs() > 1e-3)));
        let want = dense(&[(&two, lora(2), 1)]);
        for (adapters, lora) in [(&five, lora(5)), (&back, lora(2))] {
            for (got, want) in dense(&[(adapters, lora, 1)]).iter().zip(&want) {
                assert!(largest(&(got - want)) < 1e-5 * largest(want));
            }
        }
        assert_eq!(
            five.head.weight, two.head.weight,
            "frozen under its adapter"
        );
    }
}
