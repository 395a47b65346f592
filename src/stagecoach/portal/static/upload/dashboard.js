/** Uppy's Dashboard with our uploader behind it: what the browser sends. Loaded when the page stands. */

import { Dashboard, Uppy } from "../vendor/uppy.js";
import { readDropped } from "./dropped.js";
import { fileEntry, folderEntry, withFoldersAsOne } from "./sources.js";
import { StagecoachUploader } from "./uppy-uploader.js";

/** Uppy, but a folder is one entry of its list. */
class FolderUppy extends Uppy {
  addFiles(descriptors) {
    return super.addFiles(withFoldersAsOne(descriptors));
  }
}

// Up to here the Dashboard shows a list, above it a gallery of cards with pictures, which data seldom have.
const WIDEST_LIST = 576;
/** The Dashboard, always as a list, and one to assistive technology with a single file in it too. */
class ListDashboard extends Dashboard {
  constructor(uppy, options) {
    super(uppy, options);
    const afterUpdate = this.afterUpdate;
    this.afterUpdate = () => {
      afterUpdate.call(this);
      this.el?.querySelector(".uppy-Dashboard-files")?.setAttribute("role", "list");
    };
  }

  setPluginState(patch) {
    const width = patch?.containerWidth;
    super.setPluginState(width > WIDEST_LIST ? { ...patch, containerWidth: WIDEST_LIST } : patch);
  }
}

const EMPTY_HEIGHT = 200;
const FILLED_HEIGHT = 340;
const WORDS = {
  strings: {
    dropPasteFiles: "Drop files or folders here, or %{browseFiles}",
    dropPasteFolders: "Drop files or folders here, or %{browseFolders}",
    dropPasteBoth: "Drop files or folders here, or %{browseFiles} or %{browseFolders}",
    browseFiles: "choose files",
    browseFolders: "choose a folder",
    complete: "Sent",
    uploadComplete: "Sent",
  },
};

/** Answers `{ uppy, uploader, addNow(entry) }`. `options` are those of the uploader. */
export function openDashboard(target, options) {
  const uppy = new FolderUppy({ id: "upload", autoProceed: false, locale: WORDS });
  uppy.use(ListDashboard, {
    target,
    inline: true,
    width: "100%",
    height: EMPTY_HEIGHT,
    singleFileFullScreen: false,
    theme: "auto",
    fileManagerSelectionType: "both",
    showLinkToFileUploadResult: true,
    disableThumbnailGenerator: true,
    proudlyDisplayPoweredByUppy: false,
    locale: WORDS,
  });
  uppy.use(StagecoachUploader, options);
  const dashboard = uppy.getPlugin("Dashboard");
  const fit = () => dashboard.setOptions({ height: uppy.getFiles().length ? FILLED_HEIGHT : EMPTY_HEIGHT });
  uppy.on("files-added", fit);
  uppy.on("file-removed", fit);

  // Before Uppy, which leaves out what it cannot read.
  const takeDrop = async (event) => {
    if (!Array.from(event.dataTransfer?.items ?? []).some((item) => item.kind === "file")) return;
    event.preventDefault();
    event.stopPropagation();
    dashboard.setPluginState({ isDraggingOver: false });
    try {
      const { files, folders } = await readDropped(event.dataTransfer);
      uppy.addFiles([...files.map(fileEntry), ...folders.map(folderEntry)]);
    } catch (error) {
      uppy.info(error.message, "error", 15000);
    }
  };
  target.addEventListener("drop", takeDrop, { capture: true });

  const addNow = (entry) => {
    uppy.addFile(entry);
    return uppy.upload();
  };
  return { uppy, uploader: uppy.getPlugin("StagecoachUploader"), addNow };
}
