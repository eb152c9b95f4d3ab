/* From the disk a browser starts no Worker. This one runs the search's script in a frame; Material would fetch such a
   shim from elsewhere. Its interface is what Material's search asks for: IFrameWorker, importScripts as a promise. */
if (location.protocol === "file:") {
  class IFrameWorker extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = null;
      this.heard = event => {
        if (event.source !== this.frame.contentWindow) return;
        this.dispatchEvent(new MessageEvent("message", { data: event.data }));
        if (this.onmessage) this.onmessage(event);
      };
      addEventListener("message", this.heard);
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      const inside = this.frame.contentWindow.document;
      inside.open();
      inside.write(`<html><body><script>
        postMessage = message => parent.postMessage(message, "*");
        importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise(done => {
          const script = document.createElement("script");
          script.src = url;
          script.addEventListener("load", done);
          document.body.appendChild(script);
        })), Promise.resolve());
      <\/script><script src="${url}"><\/script></body></html>`);
      this.ready = new Promise(done => inside.scripts[1].addEventListener("load", done));
      inside.close();
    }
    postMessage(message) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data: message })));
    }
    terminate() {
      removeEventListener("message", this.heard);
      this.frame.remove();
    }
  }
  window.IFrameWorker = window.Worker = IFrameWorker;
}
