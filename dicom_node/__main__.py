"""`python -m dicom_node` is the same as `dicom-node`."""

from dicom_node.cli.main import main

main()
