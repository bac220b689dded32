"""CamemBERT (Martin et al. 2020, arXiv:1911.03894): RoBERTa for French."""

from dataclasses import replace

from palavra.model.families.roberta import ROBERTA, task_format

CAMEMBERT = replace(
    ROBERTA, name="camembert", architecture="CamembertForMaskedLM", task_format=task_format("Camembert")
)
