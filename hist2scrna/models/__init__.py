"""Models: a batch of spots in, a prediction out. They know nothing of AnnData."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "create": ["create_model", "model_options"],
        "contract": ["Context", "Prediction", "SpotBatch", "SpotModel", "TrainingStatistics"],
        "ghist": ["GHIST"],
        "hist2rna": ["Hist2RNA"],
        "hist2scrna": ["Hist2scRNA"],
        "hist2st": ["Hist2ST"],
        "histogene": ["HisToGene"],
        "kernel": ["KernelRegression"],
        "lightweight": ["Hist2scRNALightweight"],
        "published": ["published"],
        "registry": ["model_names", "register"],
        "ridge": ["Ridge"],
        "stnet": ["STNet"],
        "transformerst": ["TransformerST"],
    },
)
