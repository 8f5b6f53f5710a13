/** Held-out prompts before and after, as they were drawn last. */

import { made } from "../elements.js";
import { t } from "../language.js";

export function makePictures() {
  const element = made("figure", "calibri-chart calibri-pictures");
  const image = made("img");
  const none = made("p", "", t("watch.noPictures"));
  element.append(made("figcaption", "", t("watch.pictures")), image, none);
  return {
    element,
    show(run, course) {
      image.hidden = course.picture === null;
      none.hidden = course.picture !== null;
      if (course.picture === null) return;
      image.alt = t("watch.picturesOf", { title: run.title });
      // The one before stays until the next has come.
      if (image.getAttribute("src") !== course.pictureAddress) image.src = course.pictureAddress;
    },
  };
}
