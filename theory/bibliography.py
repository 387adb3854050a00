"""The papers behind the laws, by arXiv id."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """One source."""

    arxiv: str
    """arXiv id; empty for what is not on arXiv."""
    authors: str
    """As BibTeX wants them, joined by " and "."""
    title: str
    """Its title."""
    year: int
    """Of its first version."""
    url: str = ""
    """Where it is, if not on arXiv."""

    @property
    def key(self) -> str:
        """Citation key: first author, year and the title's first long word, such as kosson2023rotational."""
        surname = self.authors.split(" and ")[0].split(",")[0]
        letters = ["".join(c for c in word.lower() if c.isalpha()) for word in self.title.split()]
        first = next(word for word in letters if len(word) > 3)
        return "".join(c for c in surname.lower() if c.isascii() and c.isalpha()) + str(self.year) + first

    def bibtex(self) -> str:
        """The entry.

        Returns:
            BibTeX source, titles in braces so that capitals stay.
        """
        fields = {"title": f"{{{self.title}}}", "author": self.authors, "year": str(self.year)}
        if self.arxiv:
            fields |= {"eprint": self.arxiv, "archivePrefix": "arXiv"}
        fields |= {"url": self.url} if self.url else {}
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
        return "\n".join([f"@misc{{{self.key},", *lines, "}"])


DECAYLAB = Paper(
    "",
    "{decaylab authors}",
    "decaylab: what weight decay will do to a training run, before it is run",
    2026,
)
"""Cited for the laws that were derived here."""

ORIGINAL = Paper(
    "2310.04415",
    "D'Angelo, Francesco and Andriushchenko, Maksym and Varre, Aditya and Flammarion, Nicolas",
    "Why Do We Need Weight Decay in Modern Deep Learning?",
    2023,
)
"""The study whose claims the project re-runs."""

_PAPERS = (
    ORIGINAL,
    Paper(
        "1408.0361",
        "Dieuleveut, Aymeric and Bach, Francis",
        "Non-parametric Stochastic Approximation with Large Step sizes",
        2014,
    ),
    Paper(
        "1706.02677",
        r"Goyal, Priya and Doll{\'a}r, Piotr and Girshick, Ross and Noordhuis, Pieter and Wesolowski, Lukasz and "
        "Kyrola, Aapo and Tulloch, Andrew and Jia, Yangqing and He, Kaiming",
        "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour",
        2017,
    ),
    Paper("1706.05350", "van Laarhoven, Twan", "L2 Regularization versus Batch and Weight Normalization", 2017),
    Paper("1711.05101", "Loshchilov, Ilya and Hutter, Frank", "Decoupled Weight Decay Regularization", 2017),
    Paper(
        "1802.04434",
        "Bernstein, Jeremy and Wang, Yu-Xiang and Azizzadenesheli, Kamyar and Anandkumar, Anima",
        "signSGD: Compressed Optimisation for Non-Convex Problems",
        2018,
    ),
    Paper(
        "1812.03981",
        "Arora, Sanjeev and Li, Zhiyuan and Lyu, Kaifeng",
        "Theoretical Analysis of Auto Rate-Tuning by Batch Normalization",
        2018,
    ),
    Paper(
        "1904.09080",
        "Blanc, Guy and Gupta, Neha and Valiant, Gregory and Valiant, Paul",
        "Implicit regularization for deep neural networks driven by an Ornstein-Uhlenbeck like process",
        2019,
    ),
    Paper(
        "1910.07454",
        "Li, Zhiyuan and Arora, Sanjeev",
        "An Exponential Learning Rate Schedule for Deep Learning",
        2019,
    ),
    Paper(
        "2006.08419",
        "Wan, Ruosi and Zhu, Zhanxing and Zhang, Xiangyu and Sun, Jian",
        "Spherical Motion Dynamics: Learning Dynamics of Neural Network with Normalization, Weight Decay, and SGD",
        2020,
    ),
    Paper(
        "2006.08680",
        "HaoChen, Jeff Z. and Wei, Colin and Lee, Jason D. and Ma, Tengyu",
        "Shape Matters: Understanding the Implicit Bias of the Noise Covariance",
        2020,
    ),
    Paper(
        "2010.02916",
        "Li, Zhiyuan and Lyu, Kaifeng and Arora, Sanjeev",
        "Reconciling Modern Deep Learning with Traditional Optimization Analyses: The Intrinsic Learning Rate",
        2020,
    ),
    Paper(
        "2103.12692",
        "Zou, Difan and Wu, Jingfeng and Braverman, Vladimir and Gu, Quanquan and Kakade, Sham M.",
        "Benign Overfitting of Constant-Stepsize SGD for Linear Regression",
        2021,
    ),
    Paper(
        "2106.06530",
        "Damian, Alex and Ma, Tengyu and Lee, Jason D.",
        "Label Noise SGD Provably Prefers Flat Global Minimizers",
        2021,
    ),
    Paper(
        "2106.15739",
        "Lobacheva, Ekaterina and Kodryan, Maxim and Chirkova, Nadezhda and Malinin, Andrey and Vetrov, Dmitry",
        "On the Periodic Behavior of Neural Network Training with Batch Normalization and Weight Decay",
        2021,
    ),
    Paper(
        "2110.06914",
        "Li, Zhiyuan and Wang, Tianhao and Arora, Sanjeev",
        "What Happens after SGD Reaches Zero Loss? -- A Mathematical Framework",
        2021,
    ),
    Paper(
        "2205.10287",
        "Malladi, Sadhika and Lyu, Kaifeng and Panigrahi, Abhishek and Arora, Sanjeev",
        "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms",
        2022,
    ),
    Paper(
        "2206.07085",
        "Lyu, Kaifeng and Li, Zhiyuan and Arora, Sanjeev",
        "Understanding the Generalization Benefit of Normalization Layers: Sharpness Reduction",
        2022,
    ),
    Paper(
        "2302.06675",
        "Chen, Xiangning and Liang, Chen and Huang, Da and Real, Esteban and Wang, Kaiyuan and Liu, Yao and Pham, Hieu "
        "and Dong, Xuanyi and Luong, Thang and Hsieh, Cho-Jui and Lu, Yifeng and Le, Quoc V.",
        "Symbolic Discovery of Optimization Algorithms",
        2023,
    ),
    Paper(
        "2305.17212",
        "Kosson, Atli and Messmer, Bettina and Jaggi, Martin",
        "Rotational Equilibrium: How Weight Decay Balances Learning Across Neural Networks",
        2023,
    ),
    Paper(
        "2404.04454",
        "Xie, Shuo and Li, Zhiyuan",
        r"Implicit Bias of AdamW: $\ell_\infty$ Norm Constrained Optimization",
        2024,
    ),
    Paper(
        "2405.13698",
        "Wang, Xi and Aitchison, Laurence",
        "How to set AdamW's weight decay as you scale model and dataset size",
        2024,
    ),
    Paper(
        "2505.13738",
        "Bergsma, Shane and Dey, Nolan and Gosal, Gurpreet and Gray, Gavia and Soboleva, Daria and Hestness, Joel",
        "Power Lines: Scaling Laws for Weight Decay and Batch Size in LLM Pre-training",
        2025,
    ),
    Paper("2506.02285", "Defazio, Aaron", "Why Gradients Rapidly Increase Near the End of Training", 2025),
    Paper(
        "2510.12402",
        "Chen, Lizhang and Li, Jonathan and Liang, Kaizhao and Su, Baiyu and Xie, Cong and Pierse, Nuo Wang and "
        "Liang, Chen and Lao, Ni and Liu, Qiang",
        "Cautious Weight Decay",
        2025,
    ),
    Paper(
        "2510.15262",
        "Fan, Zhiyuan and Liu, Yifeng and Zhao, Qingyue and Yuan, Angela and Gu, Quanquan",
        "Robust Layerwise Scaling Rules by Proper Weight Decay Tuning",
        2025,
    ),
    Paper(
        "2510.19093",
        "Kosson, Atli and Welborn, Jeremy and Liu, Yang and Jaggi, Martin and Chen, Xi",
        "Weight Decay may matter more than muP for Learning Rate Transfer in Practice",
        2025,
    ),
)
MUON = Paper(
    "",
    "Jordan, Keller and Jin, Yuchen and Boza, Vlado and You, Jiacheng and Cesista, Franz and Newhouse, Laker and "
    "Bernstein, Jeremy",
    "Muon: An optimizer for hidden layers in neural networks",
    2024,
    "https://kellerjordan.github.io/posts/muon/",
)

PAPERS: dict[str, Paper] = {paper.arxiv: paper for paper in _PAPERS} | {"muon": MUON}
"""By arXiv id, and Muon's page by its name."""
