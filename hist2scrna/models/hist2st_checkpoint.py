"""Names in a published checkpoint of Hist2ST, and ours."""

NAMES = [
    (r"(patch_embedding\..*)", r"\1"),
    (r"([xy])_embed\.weight", r"position.\1.weight"),
    (r"vit\.transformer\.layer1\.(\d+)\.dw\.(.*)", r"mixer.\1.depthwise.\2"),
    (r"vit\.transformer\.layer1\.(\d+)\.pw\.(.*)", r"mixer.\1.pointwise.\2"),
    (r"vit\.transformer\.down\.0\.(.*)", r"reduce.\1"),
    (r"vit\.transformer\.layer2\.(\d+)\.attn\.norm\.(.*)", r"blocks.\1.norm1.\2"),
    (r"vit\.transformer\.layer2\.(\d+)\.attn\.fn\.to_qkv\.(.*)", r"blocks.\1.attn.qkv.\2"),
    (r"vit\.transformer\.layer2\.(\d+)\.attn\.fn\.to_out\.0\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"vit\.transformer\.layer2\.(\d+)\.ff\.norm\.(.*)", r"blocks.\1.norm2.\2"),
    (r"vit\.transformer\.layer2\.(\d+)\.ff\.fn\.net\.(.*)", r"blocks.\1.mlp.\2"),
    (r"vit\.transformer\.layer3\.(\d+)\.weight", r"graph_layers.\1.lin_l.weight"),
    (r"vit\.transformer\.jknet\.0\.(.*)", r"jumping.\1"),
    (r"gene_head\.0\.(.*)", r"norm.\1"),
    (r"gene_head\.1\.(.*)", r"heads.expression.\1"),
    (r"mean\.0\.(.*)", r"heads.mean.\1"),
    (r"disp\.0\.(.*)", r"heads.dispersion.\1"),
    (r"pi\.0\.(.*)", r"heads.dropout.\1"),
    (r"hr\.(.*)", r"heads.total.\1"),
    (r"hp\.(.*)", r"heads.logit.\1"),
    (r"coef\.(.*)", r"view_score.\1"),
]
