"""The demo catalogue: seeded drawings of products in two looks, and the folder they fill."""

from loupe.demo.catalogue.items import ARTICLE_TYPES, ItemSpec, sample_item
from loupe.demo.catalogue.kaggle_folder import write_catalogue
from loupe.demo.catalogue.palette import COLOURS
from loupe.demo.catalogue.scene import render_item

__all__ = ["ARTICLE_TYPES", "COLOURS", "ItemSpec", "render_item", "sample_item", "write_catalogue"]
