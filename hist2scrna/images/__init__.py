"""Images of sections, whatever they are read from: windows, patches, tissue, nuclei. Know nothing of AnnData."""
