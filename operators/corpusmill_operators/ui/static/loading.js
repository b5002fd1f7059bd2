// Reads our routes. Addresses are relative to the page's base, so that Airflow may live below any path.

import { React } from "./elements.js";

const REFUSALS = {
  401: "Your session has ended. Reload the page to sign in again.",
  403: "You do not have the right to see this. Ask an administrator for read access to the DAG.",
};

export function address(...parts) {
  return new URL(`corpus-quality/${parts.map((part) => encodeURIComponent(part)).join("/")}`, document.baseURI).href;
}

export async function load(...parts) {
  const answer = await fetch(address(...parts), { credentials: "same-origin" });
  if (!answer.ok) {
    throw new Error(REFUSALS[answer.status] ?? `The server answered ${answer.status} ${answer.statusText}; its log says why.`);
  }
  return answer.json();
}

/** Returns {data, error} of a route; again when its parts change. No parts: nothing is asked. */
export function useLoaded(parts) {
  const [state, setState] = React.useState({});
  const key = JSON.stringify(parts);
  React.useEffect(() => {
    let current = true;
    setState({});
    if (parts) {
      load(...parts).then(
        (data) => current && setState({ data }),
        (error) => current && setState({ error: error.message }));
    }
    return () => { current = false; };
  }, [key]);
  return state;
}
