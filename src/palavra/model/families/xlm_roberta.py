"""XLM-RoBERTa (Conneau et al. 2020, arXiv:1911.02116): RoBERTa with a vocabulary of 100 languages."""

from dataclasses import replace

from palavra.model.families.roberta import ROBERTA, task_format

XLM_ROBERTA = replace(
    ROBERTA, name="xlm-roberta", architecture="XLMRobertaForMaskedLM", task_format=task_format("XLMRoberta")
)
