// The panel on the home page: what was published last, and what is late.

import { h, Message } from "./elements.js";
import { count, time } from "./figures.js";
import { useLoaded } from "./loading.js";

const LATE_SHOWN = 3;

function PublishedCrawls() {
  const { data, error } = useLoaded(["home"]);
  if (error) return h("div", { className: "cq-panel" }, h(Message, { kind: "error" }, error));
  if (!data || !data.recipes.length) return null; // nothing to tell: the home page belongs to Airflow
  return h("section", { className: "cq-panel", "aria-labelledby": "cq-panel-title" },
    h("h2", { id: "cq-panel-title" }, "Published crawls"),
    h("div", { className: "cq-recipes" }, data.recipes.map((recipe) => h(Recipe, { key: recipe.recipe, recipe, after: data.late_after_days }))));
}

function Recipe({ recipe, after }) {
  const runs = `dags/${encodeURIComponent(recipe.dag_id)}/runs`;
  return h("div", { className: "cq-recipe" },
    h("h3", null, recipe.recipe, recipe.paused ? h("span", { className: "cq-muted" }, " (DAG is paused)") : null),
    recipe.late.length ? h(Message, { kind: "warning", title: "Late:" }, late(recipe.late, after)) : null,
    recipe.published.length
      ? h("ul", null, recipe.published.map((run) => h("li", { key: run.crawl },
        h("a", { href: new URL(`${runs}/${encodeURIComponent(run.run_id)}/plugin/corpus-quality`, document.baseURI).href }, run.crawl),
        ` ${count(run.documents)} documents`, h("span", { className: "cq-muted" }, ` ${time(run.ended_at) ?? ""}`))))
      : h("p", null, "Nothing is published yet."),
    recipe.n_published > recipe.published.length ? h("p", { className: "cq-muted" }, `${count(recipe.n_published)} crawls are published in all.`) : null);
}

function late(releases, after) {
  const shown = releases.slice(0, LATE_SHOWN).map(({ crawl, days }) => `${crawl} (released ${days} days ago)`).join(", ");
  const verb = releases.length > 1 ? "have" : "has";
  const more = releases.length > LATE_SHOWN ? ` and ${releases.length - LATE_SHOWN} more` : "";
  return `${shown}${more} ${verb} no published run; expected within ${after} days.`;
}

globalThis["Published crawls"] = PublishedCrawls;
globalThis.AirflowPlugin = PublishedCrawls;
